module sidetone.example/go-audiosocket

go 1.19

require github.com/CyCoreSystems/audiosocket v0.2.1
