// Verifies a weft receipt with code that shares nothing with weft: the signed note and the Merkle proof are read by
// golang.org/x/mod/sumdb, Ed25519 and SHA-256 are Go's own, BLAKE3 is lukechampine.com/blake3. Only the lines around
// them (tlog-proof, cosignature/v1, the position of fields in a message) are written here, after the specifications:
// c2sp.org/tlog-proof, c2sp.org/tlog-cosignature, docs/formats.md.
//
// Usage: go-receipt KEYS RECEIPT [OLD-RECEIPT CONSISTENCY-PROOF]
//
// KEYS is what `weft receipt keys` prints. Prints `verified ID INDEX SIZE COSIGNATURES WEIGHT` and exits with 0, or says
// what does not hold and exits with 1. With two more files it also checks that the receipt's checkpoint extends the older receipt's.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"lukechampine.com/blake3"
)

// cosigner verifies Ed25519 cosignatures: a note.Verifier of algorithm 4.
type cosigner struct {
	name   string
	hash   uint32
	key    ed25519.PublicKey
	weight uint64
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }

func (c *cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	time := binary.BigEndian.Uint64(sig)
	if time > 1<<63-1 {
		return false
	}
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, msg)
	return ed25519.Verify(c.key, []byte(signed), sig[8:])
}

// newCosigner reads a verifier key of algorithm 4, and checks its key id.
func newCosigner(vkey string, weight uint64) (*cosigner, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("cosigner key has no three parts")
	}
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	if err != nil {
		return nil, err
	}
	data, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(data) != 1+ed25519.PublicKeySize || data[0] != 4 {
		return nil, errors.New("cosigner key is not of algorithm 4")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), data...))
	if binary.BigEndian.Uint32(sum[:]) != uint32(hash) {
		return nil, errors.New("cosigner key id does not match the key")
	}
	return &cosigner{parts[0], uint32(hash), ed25519.PublicKey(data[1:]), weight}, nil
}

type policy struct {
	logs      map[string]note.Verifier // by lane
	cosigners []*cosigner
	quorum    uint64
}

func readPolicy(path string) (*policy, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := &policy{logs: map[string]note.Verifier{}}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "#"):
		case len(fields) == 3 && fields[0] == "lane":
			verifier, err := note.NewVerifier(fields[2])
			if err != nil {
				return nil, err
			}
			p.logs[fields[1]] = verifier
		case len(fields) == 4 && fields[0] == "validator":
			weight, err := strconv.ParseUint(fields[2], 10, 64)
			if err != nil {
				return nil, err
			}
			c, err := newCosigner(fields[3], weight)
			if err != nil {
				return nil, err
			}
			p.cosigners = append(p.cosigners, c)
		case len(fields) == 2 && fields[0] == "quorum":
			if p.quorum, err = strconv.ParseUint(fields[1], 10, 64); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("policy: %q", line)
		}
	}
	if p.quorum == 0 {
		return nil, errors.New("policy has no quorum")
	}
	return p, nil
}

// endorsed is a tree, how many validators have cosigned it, and with what weight.
type endorsed struct {
	tlog.Tree
	cosignatures int
	weight       uint64
}

// checkpoint opens a signed checkpoint: the lane's node has signed it, and validators with a quorum's weight.
func (p *policy) checkpoint(signed string) (endorsed, error) {
	origin, _, _ := strings.Cut(signed, "\n")
	lane := origin[strings.LastIndex(origin, "/")+1:]
	log := p.logs[lane]
	if log == nil || log.Name() != origin {
		return endorsed{}, fmt.Errorf("no key for %q", origin)
	}
	known := []note.Verifier{log}
	for _, c := range p.cosigners {
		known = append(known, c)
	}
	opened, err := note.Open([]byte(signed), note.VerifierList(known...))
	if err != nil {
		return endorsed{}, err
	}
	sealed, e := false, endorsed{}
	for _, sig := range opened.Sigs {
		sealed = sealed || (sig.Name == log.Name() && sig.Hash == log.KeyHash())
		for _, c := range p.cosigners {
			if c.name == sig.Name && c.hash == sig.Hash {
				e.cosignatures++
				e.weight += c.weight
			}
		}
	}
	if !sealed {
		return endorsed{}, errors.New("the lane's node has not signed")
	}
	if e.weight < p.quorum {
		return endorsed{}, fmt.Errorf("cosigned by weight %d, the quorum is %d", e.weight, p.quorum)
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return endorsed{}, errors.New("checkpoint has no three lines")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return endorsed{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return endorsed{}, err
	}
	e.Tree = tlog.Tree{N: size, Hash: root}
	return e, nil
}

// cut reads hashes, one a line, up to an empty line; the rest is a signed checkpoint.
func cut(text string) ([]tlog.Hash, string, error) {
	var hashes []tlog.Hash
	for {
		line, rest, found := strings.Cut(text, "\n")
		if !found {
			return nil, "", errors.New("no checkpoint after the proof")
		}
		text = rest
		if line == "" {
			return hashes, text, nil
		}
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return nil, "", err
		}
		hashes = append(hashes, hash)
	}
}

type receipt struct {
	message []byte
	index   int64
	proof   tlog.RecordProof
	tree    endorsed
}

func (p *policy) receipt(path string) (*receipt, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	text := string(data)
	head, text, _ := strings.Cut(text, "\n")
	if head != "c2sp.org/tlog-proof@v1" {
		return nil, errors.New("not a tlog-proof")
	}
	r := &receipt{}
	extra, text, _ := strings.Cut(text, "\n")
	if !strings.HasPrefix(extra, "extra ") {
		return nil, errors.New("the receipt does not hold the message")
	}
	if r.message, err = base64.StdEncoding.DecodeString(strings.TrimPrefix(extra, "extra ")); err != nil {
		return nil, err
	}
	index, text, _ := strings.Cut(text, "\n")
	if r.index, err = strconv.ParseInt(strings.TrimPrefix(index, "index "), 10, 64); err != nil {
		return nil, err
	}
	hashes, signed, err := cut(text)
	if err != nil {
		return nil, err
	}
	r.proof = hashes
	if r.tree, err = p.checkpoint(signed); err != nil {
		return nil, err
	}
	return r, nil
}

// id is the message's id, after checking the device's signature over it.
func (r *receipt) id() ([]byte, error) {
	const head, signature = 120, ed25519.SignatureSize
	if len(r.message) < head+signature || r.message[0] != 1 {
		return nil, errors.New("not a message of version 1")
	}
	payload := int(binary.LittleEndian.Uint16(r.message[2:]))
	if len(r.message) != head+payload+signature {
		return nil, errors.New("the message has another length than it says")
	}
	content, sig := r.message[:head+payload], r.message[head+payload:]
	id := make([]byte, 32)
	blake3.DeriveKey(id, "weft 2026-11 message v1", content)
	if !ed25519.Verify(ed25519.PublicKey(r.message[24:56]), id, sig) {
		return nil, errors.New("the device's signature is not valid")
	}
	return id, nil
}

func run(args []string) error {
	if len(args) != 2 && len(args) != 4 {
		return errors.New("usage: go-receipt KEYS RECEIPT [OLD-RECEIPT CONSISTENCY-PROOF]")
	}
	p, err := readPolicy(args[0])
	if err != nil {
		return err
	}
	r, err := p.receipt(args[1])
	if err != nil {
		return err
	}
	id, err := r.id()
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(r.proof, r.tree.N, r.tree.Hash, r.index, tlog.RecordHash(id)); err != nil {
		return err
	}
	if len(args) == 4 {
		if err := p.extends(r.tree.Tree, args[2], args[3]); err != nil {
			return err
		}
	}
	fmt.Println("verified", hex.EncodeToString(id), r.index, r.tree.N, r.tree.cosignatures, r.tree.weight)
	return nil
}

// extends checks that a tree extends the one of an older receipt.
func (p *policy) extends(tree tlog.Tree, oldPath, proofPath string) error {
	old, err := p.receipt(oldPath)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(proofPath)
	if err != nil {
		return err
	}
	head, text, _ := strings.Cut(string(data), "\n")
	if head != fmt.Sprintf("old %d", old.tree.N) {
		return fmt.Errorf("the proof starts with %q, the older size is %d", head, old.tree.N)
	}
	hashes, signed, err := cut(text)
	if err != nil {
		return err
	}
	proven, err := p.checkpoint(signed)
	if err != nil {
		return err
	}
	if proven.N != tree.N || !bytes.Equal(proven.Hash[:], tree.Hash[:]) {
		return errors.New("the proof is for another checkpoint")
	}
	return tlog.CheckTree(tlog.TreeProof(hashes), tree.N, tree.Hash, old.tree.N, old.tree.Hash)
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "NOT VERIFIED:", err)
		os.Exit(1)
	}
}
