"""FastAPI on uvicorn: `python -m benchmarks.serve.servers.fastapi_server MODEL PORT`."""

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(sys.argv[1], device="cpu")
app = FastAPI()


class Texts(BaseModel):
    """What is asked."""

    inputs: list[str]


@app.get("/health")
def health() -> str:
    """Whether it answers."""
    return "ok"


@app.post("/embed")
def embed(texts: Texts) -> list[list[float]]:
    """Vectors of the texts, in a thread of the framework's pool."""
    return model.encode(texts.inputs, normalize_embeddings=True).tolist()


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
