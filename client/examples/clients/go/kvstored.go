package main

import (
	"crypto/rand"
	"errors"
	mathrand "math/rand"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// Options of a call, by name. The timeout is a float64 or an int, in seconds.
type Options map[string]any

// Error is the map of the protocol. Key, Revision and Value depend on the code.
type Error struct {
	Code      string `msgpack:"code"`
	Message   string `msgpack:"message"`
	Retryable bool   `msgpack:"retryable"`
	Outcome   string `msgpack:"outcome"`
	Key       string `msgpack:"key"`
	Revision  uint64 `msgpack:"revision"`
	Value     []byte `msgpack:"value"`
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

func failure(code, message, outcome string) *Error {
	return &Error{Code: code, Message: message, Retryable: true, Outcome: outcome}
}

// AsError returns the error of the daemon or of this client in err, or an empty one.
func AsError(err error) *Error {
	e := &Error{}
	errors.As(err, &e)
	return e
}

// Entry has integers of 64 bits. In an interface, the decoder would choose a type by the size of each number.
type Entry struct {
	Key       string `msgpack:"key"`
	Value     []byte `msgpack:"value"`
	Revision  uint64 `msgpack:"revision"`
	Created   int64  `msgpack:"created"`
	Operation string `msgpack:"operation"`
}

// Call makes a call and decodes its result into *result. Any number of goroutines may have calls in flight.
func (c *Client) Call(method string, params []any, options Options, result any) error {
	all := Options{"timeout": c.timeout.Seconds()}
	for name, value := range options {
		all[name] = value
	}
	return c.do(&call{method: method, params: params, options: all,
		accept: func(raw msgpack.RawMessage) error { return msgpack.Unmarshal(raw, result) }})
}

// write makes a call that changes something. It has an id, with which it can be repeated.
func (c *Client) write(method string, params []any, options Options, result any) error {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	all := Options{"id": id}
	for name, value := range options {
		all[name] = value
	}
	return c.Call(method, params, all, result)
}

// Get returns nil if the key does not exist.
func (c *Client) Get(bucket, key string) (entry *Entry, err error) {
	err = c.Call("kv.get", []any{bucket, key}, nil, &entry)
	return entry, err
}

// Put writes a value: []byte or string as its bytes, everything else as JSON.
func (c *Client) Put(bucket, key string, value any, options Options) (revision uint64, err error) {
	err = c.write("kv.put", []any{bucket, key, value}, options, &revision)
	return revision, err
}

func (c *Client) Update(bucket, key string, value any, revision uint64, options Options) (next uint64, err error) {
	err = c.write("kv.update", []any{bucket, key, value, revision}, options, &next)
	return next, err
}

func (c *Client) Delete(bucket, key string, options Options) (revision uint64, err error) {
	err = c.write("kv.delete", []any{bucket, key}, options, &revision)
	return revision, err
}

// BulkGet returns nil for each key that does not exist.
func (c *Client) BulkGet(bucket string, keys []string) (entries map[string]*Entry, err error) {
	err = c.Call("bulk.get", []any{bucket, keys}, nil, &entries)
	return entries, err
}

// BulkResult has the revision of the key, or its error.
type BulkResult struct {
	Revision uint64 `msgpack:"revision"`
	Error    *Error `msgpack:"error"`
}

func (c *Client) BulkPut(bucket string, values map[string]any) (results map[string]BulkResult, err error) {
	err = c.write("bulk.put", []any{bucket, values}, nil, &results)
	return results, err
}

// Txn collects what a transaction reads and writes.
type Txn struct {
	client     *Client
	bucket     string
	checks     []any
	operations []any
}

func (t *Txn) Get(key string) (*Entry, error) {
	entry, err := t.client.Get(t.bucket, key)
	if err == nil && entry != nil {
		t.Check(key, entry.Revision)
	} else if err == nil {
		t.Check(key, 0)
	}
	return entry, err
}

// Check adds a condition, such as the name and the token of a lock.
func (t *Txn) Check(key string, revision uint64) { t.checks = append(t.checks, []any{key, revision}) }
func (t *Txn) Put(key string, value any) {
	t.operations = append(t.operations, []any{"put", key, value})
}
func (t *Txn) Delete(key string) { t.operations = append(t.operations, []any{"delete", key}) }

// Transaction calls change, and commits what it writes if what it reads is unchanged. Otherwise it calls it again.
func (c *Client) Transaction(bucket string, change func(*Txn) error) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		txn := &Txn{client: c, bucket: bucket}
		if err := change(txn); err != nil || len(txn.operations) == 0 {
			return err
		}
		var revisions []uint64
		err := c.write("txn.commit", []any{bucket, txn.checks, txn.operations}, nil, &revisions)
		if code := AsError(err).Code; code != "conflict" && code != "already_exists" {
			return err
		}
		time.Sleep(time.Duration(mathrand.Int63n(int64(pause)))) // so that many clients do not meet again
	}
}
