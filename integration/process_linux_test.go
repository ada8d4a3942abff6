package integration_test

import "syscall"

// attributes lets the kernel end a child whose test process died.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
