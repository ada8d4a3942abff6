package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// A record as `kmirror consume` prints it.
type record struct {
	topic     string
	partition int32
	offset    int64
	millis    int64
	key       []byte // nil is null
	value     []byte // nil is null
	headers   []header
}

type header struct {
	key   string
	value []byte
}

// recordWriter prints records in one format.
type recordWriter struct {
	w         *bufio.Writer
	format    string // value, kv, json
	separator string // between key and value, for kv
	terminal  bool   // somebody looks: control characters are escaped
}

func newRecordWriter(w io.Writer, format, separator string, terminal bool) (*recordWriter, error) {
	switch format {
	case "value", "kv", "json":
		return &recordWriter{w: bufio.NewWriterSize(w, 64<<10), format: format, separator: separator, terminal: terminal}, nil
	default:
		return nil, withCode(exitUsage, fmt.Errorf("--format %s: it is value, kv or json", format))
	}
}

func (w *recordWriter) write(r record) error {
	switch w.format {
	case "json":
		return w.writeJSON(r)
	case "kv":
		w.part(r.key)
		_, _ = w.w.WriteString(w.separator) // a bufio.Writer keeps its first error
	}
	w.part(r.value)
	return w.w.WriteByte('\n')
}

func (w *recordWriter) part(p []byte) {
	if w.terminal {
		_, _ = w.w.WriteString(cleanLines(string(p)))
		return
	}
	_, _ = w.w.Write(p)
}

func (w *recordWriter) flush() error { return w.w.Flush() }

// recordJSON: text stands in key and value, what is no text as base64 in
// key_base64 and value_base64; both absent is impossible, null is null.
type recordJSON struct {
	Topic       string       `json:"topic"`
	Partition   int32        `json:"partition"`
	Offset      int64        `json:"offset"`
	Timestamp   int64        `json:"timestamp"`
	Time        string       `json:"time"`
	Key         *string      `json:"key"`
	KeyBase64   string       `json:"key_base64,omitempty"`
	Value       *string      `json:"value"`
	ValueBase64 string       `json:"value_base64,omitempty"`
	Headers     []headerJSON `json:"headers,omitempty"`
}

type headerJSON struct {
	Key         string  `json:"key"`
	Value       *string `json:"value"`
	ValueBase64 string  `json:"value_base64,omitempty"`
}

func (w *recordWriter) writeJSON(r record) error {
	out := recordJSON{Topic: r.topic, Partition: r.partition, Offset: r.offset, Timestamp: r.millis, Time: time.UnixMilli(r.millis).UTC().Format("2006-01-02T15:04:05.000Z")}
	out.Key, out.KeyBase64 = textOrBase64(r.key)
	out.Value, out.ValueBase64 = textOrBase64(r.value)
	for _, h := range r.headers {
		one := headerJSON{Key: h.key}
		one.Value, one.ValueBase64 = textOrBase64(h.value)
		out.Headers = append(out.Headers, one)
	}
	line, err := json.Marshal(out)
	if err != nil {
		return err
	}
	_, _ = w.w.Write(line)
	return w.w.WriteByte('\n')
}

func textOrBase64(p []byte) (text *string, coded string) {
	switch {
	case p == nil:
		return nil, ""
	case utf8.Valid(p):
		s := string(p)
		return &s, ""
	default:
		return nil, base64.StdEncoding.EncodeToString(p)
	}
}
