package kafka

import (
	"reflect"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// holdsCode reports whether a response bears the code in any field named
// ErrorCode. Every response has them elsewhere, on top, by topic, by partition,
// by group; asking by name is one rule for all. It is for control requests, not
// for the data path.
func holdsCode(resp kmsg.Response, code int16) bool {
	return firstFault(resp, func(c int16) bool { return c == code }) != nil
}

// firstFault is the error of the first code in a response that matches, nil
// when none does.
func firstFault(resp kmsg.Response, match func(int16) bool) error {
	var found error
	anyCode(reflect.ValueOf(resp), func(code int16) bool {
		if code == 0 || !match(code) {
			return false
		}
		found = kerr.ErrorForCode(code)
		return true
	})
	return found
}

func anyCode(v reflect.Value, match func(int16) bool) bool {
	switch v.Kind() { //nolint:exhaustive // the others hold no error codes
	case reflect.Pointer, reflect.Interface:
		return !v.IsNil() && anyCode(v.Elem(), match)
	case reflect.Slice:
		if k := v.Type().Elem().Kind(); k != reflect.Struct && k != reflect.Pointer {
			return false
		}
		for i := range v.Len() {
			if anyCode(v.Index(i), match) {
				return true
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if field.Name == "ErrorCode" && field.Type.Kind() == reflect.Int16 {
				if match(int16(v.Field(i).Int())) {
					return true
				}
			} else if field.IsExported() && anyCode(v.Field(i), match) {
				return true
			}
		}
	}
	return false
}
