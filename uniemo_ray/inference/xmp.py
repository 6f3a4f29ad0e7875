"""Provenance for formats without text chunks: one XMP property that holds JSON."""

import json
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

NAMESPACE = "https://uniemo-ray.invalid/ns/1/"
"""Names our property; nothing is fetched from it."""
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's word for a picture that a trained model made; galleries and platforms read it."""


def to_xmp(provenance: Mapping[str, Any]) -> bytes:
    """An XMP packet with the entries as canonical JSON; equal entries give equal bytes."""
    text = json.dumps(provenance, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">'
        f'<rdf:Description rdf:about="" xmlns:uniemo="{NAMESPACE}" xmlns:Iptc4xmpExt="{_IPTC}" '
        f'Iptc4xmpExt:DigitalSourceType="{_GENERATED}" uniemo:provenance={quoteattr(text)}/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def from_xmp(packet: bytes) -> dict[str, Any]:
    """The entries of a packet of ours; empty for any other, damaged ones included."""
    try:
        root = ElementTree.fromstring(packet.decode().strip("\ufeff\0 \n"))
    except (ElementTree.ParseError, UnicodeDecodeError):
        return {}  # somebody else's metadata, which need not be sound
    for description in root.iter(f"{{{_RDF}}}Description"):
        text = description.get(f"{{{NAMESPACE}}}provenance")
        if text is not None:
            entries: dict[str, Any] = json.loads(text)
            return entries
    return {}
