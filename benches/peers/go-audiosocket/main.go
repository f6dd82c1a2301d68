// Go's library (CyCoreSystems), as its own example uses it.
//
//	go-audiosocket echo PORT
//	go-audiosocket play PORT CLIP      CLIP: headerless 16-bit samples at 8 kHz
package main

import (
	"log"
	"net"
	"os"

	"github.com/CyCoreSystems/audiosocket"
)

func echo(call net.Conn) {
	defer call.Close()
	if _, err := audiosocket.GetID(call); err != nil {
		return
	}
	for {
		message, err := audiosocket.NextMessage(call)
		if err != nil || message.Kind() == audiosocket.KindHangup {
			return
		}
		if message.Kind() != audiosocket.KindSlin {
			continue
		}
		if _, err := call.Write(audiosocket.SlinMessage(message.Payload())); err != nil {
			return
		}
	}
}

func play(call net.Conn, clip []byte) {
	defer call.Close()
	if _, err := audiosocket.GetID(call); err != nil {
		return
	}
	for audiosocket.SendSlinChunks(call, audiosocket.DefaultSlinChunkSize, clip) == nil {
	}
}

func main() {
	var clip []byte
	if os.Args[1] == "play" {
		var err error
		if clip, err = os.ReadFile(os.Args[3]); err != nil {
			log.Fatal(err)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	for {
		call, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		if clip != nil {
			go play(call, clip)
		} else {
			go echo(call)
		}
	}
}
