// What a program does with the client: demo VERB ARGUMENT... Before: kvctl add demo
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const timeout = 50 * time.Second // long, because a call also waits while the daemon restarts

func must[T any](result T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return result
}

func number(entry *Entry) int { return must(strconv.Atoi(string(entry.Value))) }

// tour has reads, writes and a transaction in this bucket.
func tour(bucket string) {
	client := NewClient("", timeout)
	revision := must(client.Put(bucket, "greeting", "hello", nil))
	entry := must(client.Get(bucket, "greeting"))
	fmt.Println("get:", string(entry.Value), entry.Revision == revision, must(client.Get(bucket, "nothing")) == nil)

	must(client.Update(bucket, "greeting", []byte{0, 255}, revision, nil))
	_, err := client.Update(bucket, "greeting", "late", revision, nil)
	failed := AsError(err)
	fmt.Println("update:", failed.Code, failed.Revision == revision+1, failed.Retryable, failed.Outcome)
	fmt.Printf("bytes: %x\n", must(client.Get(bucket, "greeting")).Value)

	var sum []int64
	must(0, client.Call("kv.increment", []any{bucket, "number", int64(1)<<62 + 1}, nil, &sum))
	fmt.Println("increment:", sum[0])

	written := must(client.BulkPut(bucket, map[string]any{"a": "1", "b": "2", "c..d": "3"}))
	read := must(client.BulkGet(bucket, []string{"a", "b", "x"}))
	fmt.Println("bulk:", written["a"].Revision > 0, written["c..d"].Error.Code, string(read["b"].Value), read["x"] == nil)

	// Another client changes an account after the first attempt has read it.
	must(client.BulkPut(bucket, map[string]any{"alice": "100", "bob": "100"}))
	attempts := 0
	must(0, client.Transaction(bucket, func(txn *Txn) error {
		alice, bob := must(txn.Get("alice")), must(txn.Get("bob"))
		if attempts++; attempts == 1 {
			must(client.Put(bucket, "alice", "50", nil))
		}
		txn.Put("alice", strconv.Itoa(number(alice)-30))
		txn.Put("bob", strconv.Itoa(number(bob)+30))
		return nil
	}))
	after := must(client.BulkGet(bucket, []string{"alice", "bob"}))
	fmt.Printf("transaction: %d attempts, %d %d\n", attempts, number(after["alice"]), number(after["bob"]))

	// A thousand calls in flight on one connection.
	var group sync.WaitGroup
	var revisions sync.Map
	for i := 0; i < 1000; i++ {
		group.Add(1)
		go func(key string) {
			defer group.Done()
			revisions.Store(must(client.Put(bucket, key, "v", nil)), true)
		}(fmt.Sprint("many.", i))
	}
	group.Wait()
	count := 0
	revisions.Range(func(any, any) bool { count++; return true })
	fmt.Println("in flight:", count, "revisions")
	client.Close()
}

// readLine returns a channel that is closed when a line was read.
func readLine() <-chan struct{} {
	read := make(chan struct{})
	go func() {
		bufio.NewReader(os.Stdin).ReadString('\n')
		close(read)
	}()
	return read
}

// write writes keys, 100 at a time, until a line is read. Restarts of the daemon do not disturb it.
func write(bucket string) {
	client := NewClient("", timeout)
	enough := readLine()
	var group sync.WaitGroup
	var next, written int64
	for i := 0; i < 100; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				select {
				case <-enough:
					return
				default:
				}
				key := fmt.Sprint("key.", atomic.AddInt64(&next, 1))
				if _, err := client.Put(bucket, key, "v", nil); err != nil {
					fmt.Printf("failed %v (%s)\n", err, AsError(err).Outcome)
				} else if n := atomic.AddInt64(&written, 1); n%1000 == 0 {
					fmt.Println("written", n)
				}
			}
		}()
	}
	group.Wait()
	fmt.Println("done", written)
}

// follow prints the contents and the changes of the bucket.
func follow(bucket, filter string) error {
	return Watch(context.Background(), "", bucket, filter, func(event Event) {
		if event.Type == "entry" {
			fmt.Println(event.Entry.Operation, event.Entry.Key, event.Entry.Revision)
		} else {
			fmt.Println(event.Type)
		}
	})
}

// hold holds a lock until it is lost, or until a line is read.
func hold(bucket, name string, wait time.Duration) {
	lock := must(NewClient("", timeout).Acquire(bucket, name, wait, "the demo"))
	fmt.Println("acquired", lock.Token, must(lock.Check()) > 0)
	select {
	case <-lock.Lost():
		fmt.Println("lost", AsError(lock.Err()).Code)
	case <-readLine():
		must(0, lock.Release())
		fmt.Println("released")
	}
}

// closeEarly closes the client while calls wait for a daemon that is away.
func closeEarly(bucket string) {
	client := NewClient("", timeout)
	read, acquired := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := client.Get(bucket, "key")
		read <- err
	}()
	go func() {
		_, err := client.Acquire(bucket, "job", timeout, "the demo")
		acquired <- err
	}()
	time.Sleep(100 * time.Millisecond)
	client.Close()
	fmt.Println("closed:", AsError(<-read).Code)
	fmt.Println("closed:", AsError(<-acquired).Code)
}

const usage = `usage: demo tour BUCKET
       demo write BUCKET
       demo watch BUCKET FILTER
       demo lock BUCKET NAME SECONDS    (how long to wait for the lock)
       demo close BUCKET
`

func main() {
	verb, words := "", os.Args[1:]
	if len(words) > 0 {
		verb, words = words[0], words[1:]
	}
	switch {
	case verb == "tour" && len(words) == 1:
		tour(words[0])
	case verb == "write" && len(words) == 1:
		write(words[0])
	case verb == "watch" && len(words) == 2:
		must(0, follow(words[0], words[1]))
	case verb == "close" && len(words) == 1:
		closeEarly(words[0])
	case verb == "lock" && len(words) == 3:
		if seconds, err := strconv.ParseUint(words[2], 10, 31); err == nil {
			hold(words[0], words[1], time.Duration(seconds)*time.Second)
			return
		}
		fallthrough
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
}
