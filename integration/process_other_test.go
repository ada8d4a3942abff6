//go:build !linux

package integration_test

import "syscall"

func attributes() *syscall.SysProcAttr { return nil }
