"""Settings of ``distill``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class DistillSettings(BaseModel):
    """All settings of a distillation.

    The learning rate was chosen on STSBenchmark validation and on known items in Wikipedia paragraphs (ours). Pairs are off: they
    help to search the corpus that they come from, and cost a little where the student meets other texts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_texts: int = Field(4_000, ge=1, description="largest number of texts that the teacher encodes")
    spans: int = Field(3, ge=0, description="spans of 2 to 12 words that are read from each text beside the whole")
    pair_texts: int = Field(
        0, ge=0, description="texts whose spans learn to find each other, without the teacher; 20,000 take seconds"
    )
    held_out: int = Field(200, ge=2, description="texts to measure on; at most a tenth of the corpus")
    epochs: int = Field(4, ge=0, description="passes over all texts and spans; 0 leaves the table at its start")
    batch_size: int = Field(256, ge=1, description="texts and spans in a step")
    learning_rate: float = Field(
        0.03, gt=0, description="largest change of a number in one step, in standard deviations of the table"
    )
    seed: int = Field(0, ge=0, description="seed of the texts, the spans and their order")
