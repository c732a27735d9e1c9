package main

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// Event of a watch. Type is
//
//	"entry"  the contents of the bucket, then each change once and in order
//	"ready"  the contents are complete: they are what the bucket held at this revision
//	"reset"  changes are no longer available: forget the contents, they come again
type Event struct {
	Type     string
	Entry    *Entry
	Revision uint64
}

type watch struct {
	bucket, filter string
	handle         func(Event)
	next           uint64 // the first revision that was not delivered; 0: begin with the contents
	isReady        bool
}

// Watch calls handle for the keys that match the filter until the context ends, also across restarts of the daemon. A
// watch has its own connection. It reads only when handle returns, so a slow program holds up neither its calls nor the
// daemon.
func Watch(ctx context.Context, path, bucket, filter string, handle func(Event)) error {
	w := &watch{bucket: bucket, filter: filter, handle: handle}
	for pause := 10 * time.Millisecond; ctx.Err() == nil; pause = min(2*pause, time.Second) {
		before := w.next
		err := w.follow(ctx, socketPath(path))
		var refusal *Error
		switch isRefused := errors.As(err, &refusal); {
		case isRefused && refusal.Code == "revision_gone":
			w.next, w.isReady = 0, false
			handle(Event{Type: "reset"})
		case isRefused && refusal.Revision > 0: // the program was too slow
			w.next = refusal.Revision
		case isRefused && !refusal.Retryable:
			return err // such as bucket_not_found
		}
		if w.next != before {
			pause = 10 * time.Millisecond
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return ctx.Err()
}

// follow has one session, and returns why it has ended.
func (w *watch) follow(ctx context.Context, path string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-ctx.Done():
			conn.Close()
		case <-ended:
		}
	}()

	options := Options{"filter": w.filter, "snapshot": true}
	if w.next > 0 {
		options["from_revision"] = w.next
	}
	start, err := msgpack.Marshal([]any{0, 1, "watch.start", []any{w.bucket, options}})
	if err != nil {
		return err
	}
	if _, err := conn.Write(start); err != nil {
		return err
	}
	for decoder := msgpack.NewDecoder(conn); err == nil; {
		err = w.receive(decoder)
	}
	return err
}

func (w *watch) receive(decoder *msgpack.Decoder) error {
	var kind int
	if _, err := decoder.DecodeArrayLen(); err != nil {
		return err
	}
	if err := decoder.Decode(&kind); err != nil {
		return err
	}
	if kind == 1 { // the answer to watch.start, or about the session, which ends
		var id, result *uint32
		var refusal *Error
		if err := decoder.DecodeMulti(&id, &refusal, &result); err != nil || refusal == nil {
			return err
		}
		return refusal
	}
	var method string
	var params []msgpack.RawMessage
	if err := decoder.DecodeMulti(&method, &params); err != nil {
		return err
	}
	switch method {
	case "watch.entries":
		var entries []*Entry
		if err := msgpack.Unmarshal(params[1], &entries); err != nil {
			return err
		}
		for _, entry := range entries {
			w.next = entry.Revision + 1
			w.handle(Event{Type: "entry", Entry: entry, Revision: entry.Revision})
		}
	case "watch.ready":
		var revision uint64
		if err := msgpack.Unmarshal(params[1], &revision); err != nil {
			return err
		}
		if revision+1 < w.next { // the bucket was recreated, or restored from a backup
			return failure("revision_gone", "the bucket is older than the watch", "")
		}
		w.next = revision + 1
		if !w.isReady {
			w.isReady = true
			w.handle(Event{Type: "ready", Revision: revision})
		}
	case "watch.ended":
		refusal := &Error{}
		if err := msgpack.Unmarshal(params[1], refusal); err != nil {
			return err
		}
		return refusal
	}
	return nil
}
