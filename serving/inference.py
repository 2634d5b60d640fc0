"""The Open Inference Protocol v2 over any transport: tensors in, one row of them a request; probabilities and receipts out.

What the tensors say is `serving.inference_inputs`; features are read online, as for JSON, unless they come along.
`serving.inference_http` and `serving.inference_grpc` only carry bytes to and from this. Refuses a question as a whole when
one of its rows is wrong, naming it, because the protocol has no answer for a part; then nothing is logged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headway.clock import format_us
from headway.errors import HeadwayError, InputRejected
from headway.problem import Problem
from serving.collector_limits import Refused
from serving.inference_inputs import Datatype, Inputs, Tensor
from serving.scoring import Arrival, Scored, Scoring

Parameters = Mapping[str, str | bool]

SERVER = "headway"
PROTOCOL_VERSION = "2"
EXTENSIONS = ("binary_tensor_data",)
PLATFORM = "lightgbm_text"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a client asks of a model; ``outputs`` empty for all of them, ``version`` empty for the one that serves."""

    model: str
    version: str
    inputs: Sequence[Tensor]
    outputs: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Inferred:
    """The answer: outputs by name, in the order asked for, one value for each of ``rows``."""

    rows: int
    outputs: Mapping[str, tuple[Datatype, list[float] | list[str]]]
    parameters: Parameters


# Outputs and what they hold.
OUTPUTS: Mapping[str, Datatype] = {"probability": "FP64", "receipt": "BYTES"}


class Inference:
    """One model version as the protocol sees it."""

    def __init__(self, scoring: Scoring) -> None:
        """Raises ContractViolation when a field of the request has no tensor."""
        self._scoring = scoring
        self.name, self.version = scoring.model.name, str(scoring.model.version)
        self._inputs = Inputs(scoring.parts.product, limit=scoring.parts.rows)

    def check_model(self, name: str, version: str) -> None:
        """Refuse another model, or another version of this one.

        Raises:
            Refused: it is not here.
        """
        if name != self.name or version not in ("", self.version):
            wanted = f"{self.name} or its version {self.version}"
            got = f"{name} version {version}" if version else name
            raise Refused(Problem(404, "no-such-model", f"model: got {got}, wanted {wanted}"))

    def server_metadata(self) -> dict[str, Any]:  # Any: a JSON document
        """Return what the server says of itself."""
        return {"name": SERVER, "version": PROTOCOL_VERSION, "extensions": list(EXTENSIONS)}

    def model_metadata(self) -> dict[str, Any]:  # Any: a JSON document
        """Return what the model takes and gives."""
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": PLATFORM,
            "inputs": [_described(field.name, field.datatype) for field in self._inputs.fields.values()],
            "outputs": [_described(name, datatype) for name, datatype in OUTPUTS.items()],
            # FP64 inputs too, which a client gives all or none of: what they are is in the catalogue.
            "properties": {"features": ",".join(self._inputs.features)},
        }

    async def infer(self, question: Question, arrival: Arrival) -> Inferred:
        """Return the probabilities of a question's rows, each logged under its receipt.

        Raises:
            Refused: model, inputs or outputs are not what is here, or a row cannot be answered.
        """
        try:
            return await self._infer(question, arrival)
        except HeadwayError as error:
            raise Refused(self._scoring.refused(error, arrival)) from error

    async def _infer(self, question: Question, arrival: Arrival) -> Inferred:
        self.check_model(question.model, question.version)
        wanted = list(question.outputs) or list(OUTPUTS)
        if unknown := [name for name in wanted if name not in OUTPUTS]:
            raise InputRejected(f"outputs: got {unknown[0]!r}, wanted {', '.join(OUTPUTS)}")
        asked = self._inputs.asked(question.inputs)
        answers = await self._scoring.each(asked.requests, arrival, asked.given)
        scored: list[Scored] = []
        for place, answer in enumerate(answers):
            if isinstance(answer, Problem):
                raise Refused(Problem(answer.status, answer.kind, f"row {place}: {answer.detail}"))
            scored.append(answer)
        for each in scored:
            self._scoring.log(each)
        told: dict[str, list[float] | list[str]] = {
            "probability": [each.prediction.probability for each in scored],
            "receipt": [each.prediction.receipt for each in scored],
        }
        return Inferred(
            rows=len(scored),
            outputs={name: (OUTPUTS[name], told[name]) for name in wanted},
            parameters={**self._parameters(scored[0]), "features": "online" if asked.given is None else "given"},
        )

    def _parameters(self, first: Scored) -> Parameters:
        prediction, read = first.prediction, first.read
        return {
            "model_version": self.version,
            "model_digest": prediction.model.digest,
            "as_of": format_us(prediction.as_of_us),
            "watermark": "" if read.watermark_us is None else format_us(read.watermark_us),
            "stale": ",".join(prediction.stale),
            "degraded": prediction.degraded,
        }


def _described(name: str, datatype: Datatype) -> dict[str, Any]:  # Any: a JSON document
    return {"name": name, "datatype": datatype, "shape": [-1]}
