"""The ticket of engines that finish before they return."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class FinishedTicket:
    """A batch that was finished before its ticket was handed out. See `Ticket`."""

    done = True

    def __init__(self, white_balance: npt.NDArray[np.float32]) -> None:
        self.white_balance = white_balance

    def wait(self) -> None:
        """See `Ticket.wait`: there is nothing to wait for."""
