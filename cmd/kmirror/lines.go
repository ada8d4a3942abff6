package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// keyValue is one line read as a record; a nil key or value is a null.
type keyValue struct {
	key, value []byte
	line       int
}

// lineReader reads records from lines. The last line needs no newline; a
// carriage return before one is kept, as it is data.
type lineReader struct {
	r         *bufio.Reader
	separator []byte // empty: lines are values, keys are null
	emptyNull bool   // an empty value is a null, a tombstone
	limit     int    // bytes of a line
	line      int
}

func newLineReader(r io.Reader, separator string, emptyNull bool, limit int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 64<<10), separator: []byte(separator), emptyNull: emptyNull, limit: limit}
}

// next returns the next record, io.EOF after the last. What it returns belongs to the caller.
func (l *lineReader) next() (keyValue, error) {
	var line []byte
	for {
		part, err := l.r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > l.limit+1 {
			return keyValue{}, fmt.Errorf("line %d is longer than %d bytes: --max-bytes sets the limit", l.line+1, l.limit)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) && len(line) > 0 || err == nil {
			break
		}
		return keyValue{}, err
	}
	l.line++
	record := keyValue{value: bytes.TrimSuffix(line, []byte("\n")), line: l.line}
	if len(l.separator) > 0 {
		key, value, found := bytes.Cut(record.value, l.separator)
		if !found {
			return keyValue{}, fmt.Errorf("line %d has no key separator %q: what was before it is written", l.line, l.separator)
		}
		record.key, record.value = key, value
	}
	if l.emptyNull && len(record.value) == 0 {
		record.value = nil
	}
	return record, nil
}
