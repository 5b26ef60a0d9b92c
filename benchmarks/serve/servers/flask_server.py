"""Flask behind waitress: `python -m benchmarks.serve.servers.flask_server MODEL PORT`."""

import sys

from flask import Flask, jsonify, request
from sentence_transformers import SentenceTransformer
from waitress import serve

model = SentenceTransformer(sys.argv[1], device="cpu")
app = Flask(__name__)


@app.get("/health")
def health() -> str:
    """Whether it answers."""
    return "ok"


@app.post("/embed")
def embed() -> object:
    """Vectors of the texts."""
    return jsonify(model.encode(request.get_json()["inputs"], normalize_embeddings=True).tolist())


serve(app, host="127.0.0.1", port=int(sys.argv[2]), threads=4)
