// Says who it is, copies a file, and ends with the number of its arguments.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Println("Go says", os.Getenv("WORD"))
	note, err := os.ReadFile("/in/note")
	if err == nil {
		err = os.WriteFile("/out/note", note, 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(100)
	}
	os.Exit(len(os.Args))
}
