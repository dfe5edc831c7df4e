"""A model behind FastAPI as many serve one: DataFrame, pipeline, ORM. `fastapi_peer.py PORT LOGISTIC`.

Where practice differs, this takes the faster way: no log of requests, SQLite in WAL and no sync a commit.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import joblib
import pandas as pd
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field
from sqlalchemy import create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker


class Kick(BaseModel):
    """What comes in."""

    time_norm: float = Field(ge=0, le=1)
    distance: float = Field(ge=2, le=100)
    angle: float = Field(ge=0, le=90)
    wind_speed: float = Field(ge=0, le=50)
    precipitation_probability: float = Field(ge=0, le=1)
    is_left_footed: bool
    game_away: bool
    is_endgame: bool
    is_start: bool
    is_left_side: bool
    has_previous_attempts: bool


class Answer(BaseModel):
    """What goes out."""

    id: int
    prediction: float
    confidence: float


class Base(DeclarativeBase):
    """The tables."""


class Row(Base):
    """A prediction as it is kept."""

    __tablename__ = "predictions"

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))
    time_norm: Mapped[float]
    distance: Mapped[float]
    angle: Mapped[float]
    wind_speed: Mapped[float]
    precipitation_probability: Mapped[float]
    is_left_footed: Mapped[bool]
    game_away: Mapped[bool]
    is_endgame: Mapped[bool]
    is_start: Mapped[bool]
    is_left_side: Mapped[bool]
    has_previous_attempts: Mapped[bool]
    prediction: Mapped[float]
    confidence: Mapped[float]


engine = create_engine("sqlite:///fastapi.db", connect_args={"check_same_thread": False, "timeout": 30})
new_session = sessionmaker(engine)
model = joblib.load(sys.argv[2])
app = FastAPI()


@event.listens_for(engine, "connect")
def _set_up(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


@app.get("/health")
def health() -> str:
    """Say that it is up."""
    return "ok"


# A coroutine, though it blocks: on one core that was faster than with the pool of threads.
@app.post("/predict")
async def predict(kick: Kick) -> Answer:
    """Predict one kick, and keep the prediction."""
    features = kick.model_dump()
    p = float(model.predict_proba(pd.DataFrame([features]))[0, 1])
    row = Row(**features, prediction=p, confidence=max(p, 1 - p))
    with new_session() as session:
        session.add(row)
        session.commit()
        return Answer(id=row.id, prediction=p, confidence=row.confidence)


if __name__ == "__main__":
    Base.metadata.create_all(engine)
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="warning")
