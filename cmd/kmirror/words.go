package main

import (
	"os"
	"path/filepath"
	"strings"
)

// command is a line that the reader can type to run one of our commands, the
// way this one was started and with the same configuration.
func (a *app) command(args ...string) string {
	words := append([]string{a.program()}, args...)
	if a.config != "mirror.yaml" {
		words = append(words, "--config", quoteWord(a.config))
	}
	return strings.Join(words, " ")
}

// program is how this program is called: `go run` puts the binary somewhere
// that nobody would type.
func (a *app) program() string {
	executable, err := os.Executable()
	if err == nil && strings.Contains(executable, string(filepath.Separator)+"go-build") && filepath.Base(executable) == "kmirror" {
		return "go run ./cmd/kmirror"
	}
	return "kmirror"
}

// quoteWord quotes a word for a shell where it needs it.
func quoteWord(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+=,", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
