package sinkpb

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

var publish = flag.Bool("publish", false, "write sink.binpb and docs/sink.proto: what is written there can never be taken back")

const (
	published = "sink.binpb"
	shown     = "../../docs/sink.proto"
)

// descriptorCopies lie where programs in other languages load the descriptor from.
func descriptorCopies() []string {
	return []string{"../../docs/sink.binpb", "../../docs/examples/sink-python/sink.binpb"}
}

// descriptor is the contract as it is now, with everything that it imports, so that
// a program in any language can load it.
func descriptor() *descriptorpb.FileDescriptorSet {
	set := &descriptorpb.FileDescriptorSet{}
	var add func(f protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		if !slices.ContainsFunc(set.File, func(have *descriptorpb.FileDescriptorProto) bool { return have.GetName() == f.Path() }) {
			set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
		}
	}
	add(File_peanuts_sink_v1_sink_proto)
	return set
}

// TestTheContractOnlyGrows compares with what was published. A field that moved would
// be read as another one by every plugin that exists.
func TestTheContractOnlyGrows(t *testing.T) {
	source, err := os.ReadFile("sink.proto")
	if err != nil {
		t.Fatal(err)
	}
	if *publish {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(descriptor())
		if err != nil {
			t.Fatal(err)
		}
		files := map[string][]byte{published: b, shown: source}
		for _, name := range descriptorCopies() {
			files[name] = b
		}
		for name, content := range files {
			if err := os.WriteFile(name, content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	old := readPublished(t)
	for _, broken := range incompatible(old, File_peanuts_sink_v1_sink_proto) {
		t.Error(broken)
	}
	if missing := incompatible(File_peanuts_sink_v1_sink_proto, old); len(missing) > 0 {
		t.Errorf("not published yet: %q; go test ./internal/sinkpb -publish", missing)
	}
	if copied, err := os.ReadFile(shown); err != nil || !bytes.Equal(copied, source) {
		t.Errorf("docs/sink.proto is not internal/sinkpb/sink.proto (%v); go test ./internal/sinkpb -publish", err)
	}
	original, err := os.ReadFile(published)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range descriptorCopies() {
		if copied, err := os.ReadFile(name); err != nil || !bytes.Equal(copied, original) {
			t.Errorf("%s is not sink.binpb (%v); go test ./internal/sinkpb -publish", name, err)
		}
	}
}

func readPublished(t *testing.T) protoreflect.FileDescriptor {
	t.Helper()
	b, err := os.ReadFile(published)
	if err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(b, &set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		t.Fatal(err)
	}
	f, err := files.FindFileByPath(string(File_peanuts_sink_v1_sink_proto.Path()))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// incompatible lists what the old contract has and the new one lacks or has
// differently.
func incompatible(was, is protoreflect.FileDescriptor) (broken []string) {
	complain := func(d protoreflect.Descriptor, what string) { broken = append(broken, string(d.FullName())+" "+what) }
	for i := range was.Messages().Len() {
		m := was.Messages().Get(i)
		now := is.Messages().ByName(m.Name())
		if now == nil {
			complain(m, "is gone")
			continue
		}
		for j := range m.Fields().Len() {
			f := m.Fields().Get(j)
			switch n := now.Fields().ByNumber(f.Number()); {
			case n == nil:
				complain(f, "is gone")
			case n.Name() != f.Name():
				complain(f, "is now called "+string(n.Name()))
			case n.Kind() != f.Kind() || n.Cardinality() != f.Cardinality() || typeOf(n) != typeOf(f):
				complain(f, "has another type")
			}
		}
	}
	for i := range was.Enums().Len() {
		e := was.Enums().Get(i)
		now := is.Enums().ByName(e.Name())
		if now == nil {
			complain(e, "is gone")
			continue
		}
		for j := range e.Values().Len() {
			v := e.Values().Get(j)
			if n := now.Values().ByNumber(v.Number()); n == nil || n.Name() != v.Name() {
				complain(v, "is gone")
			}
		}
	}
	for i := range was.Services().Len() {
		s := was.Services().Get(i)
		now := is.Services().ByName(s.Name())
		if now == nil {
			complain(s, "is gone")
			continue
		}
		for j := range s.Methods().Len() {
			m := s.Methods().Get(j)
			n := now.Methods().ByName(m.Name())
			if n == nil || n.Input().FullName() != m.Input().FullName() || n.Output().FullName() != m.Output().FullName() ||
				n.IsStreamingClient() != m.IsStreamingClient() || n.IsStreamingServer() != m.IsStreamingServer() {
				complain(m, "is gone or has another type")
			}
		}
	}
	return broken
}

func typeOf(f protoreflect.FieldDescriptor) protoreflect.FullName {
	switch {
	case f.Message() != nil:
		return f.Message().FullName()
	case f.Enum() != nil:
		return f.Enum().FullName()
	}
	return ""
}

// TestAChangeThatBreaksPluginsIsNoticed shows that the comparison can fail.
func TestAChangeThatBreaksPluginsIsNoticed(t *testing.T) {
	for name, change := range map[string]func(f *descriptorpb.FileDescriptorProto){
		"a message is gone": func(f *descriptorpb.FileDescriptorProto) {
			f.MessageType[slices.IndexFunc(f.MessageType, func(m *descriptorpb.DescriptorProto) bool { return m.GetName() == "HealthRequest" })].Name = new("Other")
			f.Service[0].Method = nil
		},
		"a field is renumbered": func(f *descriptorpb.FileDescriptorProto) { message(f, "Result").Field[0].Number = proto.Int32(99) },
		"a field is renamed":    func(f *descriptorpb.FileDescriptorProto) { message(f, "Result").Field[0].Name = new("id") },
		"a field is retyped": func(f *descriptorpb.FileDescriptorProto) {
			message(f, "Result").Field[0].Type = descriptorpb.FieldDescriptorProto_TYPE_BYTES.Enum()
		},
		"a field is repeated": func(f *descriptorpb.FileDescriptorProto) {
			message(f, "Result").Field[0].Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		},
		"an outcome is gone":  func(f *descriptorpb.FileDescriptorProto) { f.EnumType[1].Value = f.EnumType[1].Value[:3] },
		"a method is gone":    func(f *descriptorpb.FileDescriptorProto) { f.Service[0].Method = f.Service[0].Method[1:] },
		"a method streams":    func(f *descriptorpb.FileDescriptorProto) { f.Service[0].Method[1].ServerStreaming = new(true) },
		"the service is gone": func(f *descriptorpb.FileDescriptorProto) { f.Service = nil },
	} {
		f := protodesc.ToFileDescriptorProto(File_peanuts_sink_v1_sink_proto)
		change(f)
		now, err := protodesc.NewFile(f, protoregistry.GlobalFiles)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(incompatible(File_peanuts_sink_v1_sink_proto, now)) == 0 {
			t.Errorf("%s, and nobody noticed", name)
		}
	}
}

func message(f *descriptorpb.FileDescriptorProto, name string) *descriptorpb.DescriptorProto {
	i := slices.IndexFunc(f.MessageType, func(m *descriptorpb.DescriptorProto) bool { return m.GetName() == name })
	return f.MessageType[i]
}

// TestTheGeneratedCodeIsThatOfTheProto runs the generator again.
func TestTheGeneratedCodeIsThatOfTheProto(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("go", "run", "./gen", "-into", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	fresh, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(fresh) != 2 {
		t.Fatalf("generated %q, %v", fresh, err)
	}
	for _, path := range fresh {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if have, err := os.ReadFile(filepath.Base(path)); err != nil || !bytes.Equal(have, want) {
			t.Errorf("%s is out of date (%v); go generate ./internal/sinkpb", filepath.Base(path), err)
		}
	}
}
