"""What a stock SuperNode runs of the installed nacre: one message in, one message out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from flwr.app import Context, Message
from flwr.app.error import Error
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from nacre.federated_learning.flower.blob import blob_of, records_of

ConfiguredReply = Callable[[Mapping[str, object], bytes], bytes | None]
"""The node's own configuration and the bytes of a message -> the bytes of the reply, if any."""


def client_app(answer: ConfiguredReply) -> ClientApp:
    """The app that answers by `answer`.

    Nothing but the SuperNode's own `--node-config` reaches it beside the message: no setting of the
    run, which is the server's. What `answer` raises is printed here and named to nobody, since
    Flower would send its words to the server.
    """
    app = ClientApp()

    def reply(message: Message, context: Context) -> Message:
        data = blob_of(message)
        try:
            found = answer(context.node_config, data) if data is not None else None
        except Exception as error:
            print(f"nacre: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            found = None
        if found is None:
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, ""), reply_to=message)
        return Message(records_of(found), reply_to=message)

    app.query()(reply)
    return app
