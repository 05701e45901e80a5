// Command gen turns sink.proto into Go code. It needs nothing but Go: the compiler is
// a library, and the two generators are tools of scripts/tools.mod.
//
// Guarantee: the same proto gives the same bytes; a file is written only when
// everything was generated.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const (
	file = "sink.proto"
	// source is the name under which every program that uses the contract registers
	// it: one that is registered twice ends the program at its start.
	source = "peanuts/sink/v1/" + file
)

func main() {
	log.SetFlags(0)
	into := flag.String("into", ".", "directory for what is generated")
	flag.Parse()
	if err := run(*into); err != nil {
		log.Fatal(err)
	}
}

func run(into string) error {
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{Accessor: open}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(context.Background(), source)
	if err != nil {
		return fmt.Errorf("compile %s: %w", source, err)
	}
	request := &pluginpb.CodeGeneratorRequest{FileToGenerate: []string{source}, ProtoFile: withImports(files[0], nil),
		Parameter: new("paths=source_relative")}
	generated := map[string]string{}
	for _, tool := range []string{"google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc"} {
		if err := generate(tool, request, generated); err != nil {
			return err
		}
	}
	for name, content := range generated {
		if err := os.WriteFile(filepath.Join(into, filepath.Base(name)), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func open(name string) (io.ReadCloser, error) {
	if name != source {
		return nil, fs.ErrNotExist
	}
	return os.Open(file)
}

// withImports lists a file after everything that it imports.
func withImports(f protoreflect.FileDescriptor, list []*descriptorpb.FileDescriptorProto) []*descriptorpb.FileDescriptorProto {
	for i := range f.Imports().Len() {
		list = withImports(f.Imports().Get(i).FileDescriptor, list)
	}
	for _, have := range list {
		if have.GetName() == f.Path() {
			return list
		}
	}
	return append(list, protodesc.ToFileDescriptorProto(f))
}

// generate runs one generator, which speaks protocol buffers on its standard
// input and output.
func generate(tool string, request *pluginpb.CodeGeneratorRequest, into map[string]string) error {
	in, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the module: %w", err)
	}
	cmd := exec.Command("go", "tool", "-modfile="+filepath.Join(string(bytes.TrimSpace(root)), "scripts", "tools.mod"), tool)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("run %s: %w", tool, err)
	}
	var answer pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &answer); err != nil {
		return fmt.Errorf("answer of %s: %w", tool, err)
	}
	if answer.Error != nil {
		return errors.New(tool + ": " + answer.GetError())
	}
	for _, f := range answer.File {
		into[f.GetName()] = f.GetContent()
	}
	return nil
}
