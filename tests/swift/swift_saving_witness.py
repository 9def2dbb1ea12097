"""For --external_plugins after the estimator's: saves what each process witnesses into the folder $WITNESSED."""

import atexit
import os

import torch
from swift_witness import Witness

from credit.adapters.swift.trainer import CreditGRPOTrainer

witness = Witness(CreditGRPOTrainer).__enter__()


@atexit.register
def save():
    for batch in witness.batches:
        # The models' classes carry hooks of ms-swift's that cannot be saved.
        batch.policy = batch.policy.state_dict()
        batch.reference = None if batch.reference is None else batch.reference.state_dict()
    rank = os.environ["RANK"]
    found = {"batches": witness.batches, "logs": witness.logs, "weights": witness.weights().detach()}
    torch.save(found, f"{os.environ['WITNESSED']}/{rank}.pt")
