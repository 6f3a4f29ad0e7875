"""What schemathesis cannot guess from a description: files that are pictures, prompts of a few words."""

import base64

import schemathesis
from hypothesis import strategies as st

from benchmarks.mutated_images import KINDS, sound_files

FILES = sound_files()

for _kind, _media_type in KINDS.items():
    schemathesis.openapi.media_type(_media_type, st.just(FILES[_kind]))
_encoded = [base64.b64encode(data).decode() for data in FILES.values()]
schemathesis.openapi.format("base64-image", st.sampled_from(_encoded))
_words = st.lists(st.sampled_from(("room", "street", "forest", "beach")), max_size=2)
schemathesis.openapi.format("prompt", _words.map(lambda words: " ".join(["{}", *words])))
