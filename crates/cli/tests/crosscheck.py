"""Checks an exported log with nothing of Provara's: Python's own JSON and SHA-256, and OpenSSL's Ed25519.

Usage: crosscheck.py LOG.jsonl CHECKPOINT KEY. Ends with 0 when all agrees.
"""

import base64
import hashlib
import json
import subprocess
import sys
import tempfile


def root(leaves):
    """RFC 6962, section 2.1, to the letter."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\1" + root(leaves[:half]) + root(leaves[half:])).digest()


def verify_signature(key, message, signature):
    """By OpenSSL: the key as SubjectPublicKeyInfo of RFC 8410."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: f"{folder}/{name}" for name in ("key", "message", "signature")}
        spki = bytes.fromhex("302a300506032b6570032100") + key
        for name, content in (("key", spki), ("message", message), ("signature", signature)):
            with open(paths[name], "wb") as file:
                file.write(content)
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", paths["key"]]
        command += ["-rawin", "-in", paths["message"], "-sigfile", paths["signature"]]
        subprocess.run(command, check=True, capture_output=True)


def main(log, checkpoint, vkey):
    leaves = []
    with open(log, encoding="utf-8") as lines:
        for position, line in enumerate(lines):
            entry = json.loads(line)
            assert entry["position"] == position, f"line {position}"
            leaf = entry["leaf"]
            # Our leaves hold no number on which Python and RFC 8785 differ, and ASCII keys only.
            again = json.dumps(json.loads(leaf), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            assert again == leaf, f"entry {position} is not canonical:\n{leaf}\n{again}"
            leaves.append(leaf.encode())

    text, signatures = open(checkpoint, encoding="utf-8").read().split("\n\n")
    text += "\n"
    origin, size, signed_root = text.splitlines()
    assert base64.b64decode(signed_root) == root(leaves[: int(size)]), "the root differs"

    name, key_hash, key = open(vkey, encoding="utf-8").read().strip().split("+", 2)
    typed = base64.b64decode(key)
    assert name == origin and typed[0] == 1
    assert hashlib.sha256(name.encode() + b"\n" + typed).digest()[:4].hex() == key_hash, "the key's hash differs"
    dash, signer, blob = signatures.splitlines()[0].split(" ")
    blob = base64.b64decode(blob)
    assert (dash, signer, blob[:4].hex()) == ("\u2014", origin, key_hash)
    verify_signature(typed[1:], text.encode(), blob[4:])
    print(f"{len(leaves)} entries agree, {size} of them signed")


if __name__ == "__main__":
    main(*sys.argv[1:])
