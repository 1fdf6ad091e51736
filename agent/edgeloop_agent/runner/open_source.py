"""Which source and sink a slot's configuration means: built in, or a plug-in's."""

import time

from edgeloop_agent import plugins
from edgeloop_agent.config import (
    LinesSource,
    MqttTopic,
    OpenInferenceSource,
    PlugIn,
    ReplaySource,
    SlotConfig,
)
from edgeloop_agent.errors import DataSetError, PluginError
from edgeloop_agent.runner.handover import HandOver
from edgeloop_agent.runner.model import Model
from edgeloop_agent.runner.sinks import AnsweringSink, DiscardingSink, FileSink, Sink
from edgeloop_agent.runner.sources import Replay, SampleSource, SocketFeed
from edgeloop_agent.runner_protocol import Endpoint


def open_source(config: SlotConfig, endpoint: Endpoint | None, model: Model) -> SampleSource:
    """Raises DataSetError when it cannot be opened now."""
    source = config.source
    if isinstance(source, ReplaySource):
        return Replay(source, time.monotonic())
    if isinstance(source, OpenInferenceSource):
        from edgeloop_agent.runner.open_inference import OpenInference

        return OpenInference(source, model, _feed(endpoint), _hand_over(endpoint))
    if isinstance(source, LinesSource):
        from edgeloop_agent.runner.line_feed import LineFeed

        return LineFeed(_feed(endpoint), _hand_over(endpoint))
    if isinstance(source, MqttTopic):
        from edgeloop_agent.runner.mqtt_topic import MqttFeed

        return MqttFeed(source)
    if isinstance(source, PlugIn):
        try:
            opened: SampleSource = plugins.load(plugins.SOURCES, source.kind)(source.options)
        except PluginError as error:
            raise DataSetError(str(error)) from error
        except Exception as error:  # whatever a plug-in raises
            raise DataSetError(f"source {source.kind}: {error}") from error
        return opened
    return SocketFeed(source)


def open_sink(config: SlotConfig, source: SampleSource) -> Sink:
    """Raises DataSetError when it cannot be opened now."""
    sink = config.sink
    if isinstance(sink, PlugIn):
        try:
            opened: Sink = plugins.load(plugins.SINKS, sink.kind)(sink.options)
        except PluginError as error:
            raise DataSetError(str(error)) from error
        except Exception as error:  # whatever a plug-in raises
            raise DataSetError(f"sink {sink.kind}: {error}") from error
        return opened
    if isinstance(sink, MqttTopic):
        from edgeloop_agent.runner.mqtt_topic import MqttSink

        return MqttSink(sink)
    if sink.kind == "jsonl":
        return FileSink(sink)
    if sink.kind == "socket" and isinstance(source, SocketFeed):
        return AnsweringSink(source)
    return DiscardingSink()


def _feed(endpoint: Endpoint | None) -> int | None:
    return None if endpoint is None else endpoint.feed


def _hand_over(endpoint: Endpoint | None) -> HandOver | None:
    return None if endpoint is None else HandOver(endpoint.hand_over, endpoint.take_over)
