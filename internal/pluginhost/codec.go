package pluginhost

import (
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

var errTooMany = errors.New("its answer has far too many parts")

// bounded are the options of a call whose answer has at most size bytes and parts fields.
//
// The number matters as much as the size: an empty message takes two bytes on the wire and
// a hundred times that in memory.
func bounded(size, parts int) []grpc.CallOption {
	return []grpc.CallOption{grpc.MaxCallRecvMsgSize(size), grpc.ForceCodecV2(codec{sinkpb.Codec{}, parts})}
}

// codec refuses an answer of too many fields before it is decoded.
type codec struct {
	encoding.CodecV2
	parts int
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	rest := buf.ReadOnlyData()
	for n := 0; len(rest) > 0; n++ {
		if n == c.parts {
			return errTooMany
		}
		_, _, length := protowire.ConsumeField(rest)
		if length < 0 {
			break // the decoder says what is wrong
		}
		rest = rest[length:]
	}
	return c.CodecV2.Unmarshal(mem.BufferSlice{buf}, v)
}
