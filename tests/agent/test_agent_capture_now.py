"""`capture now`, from the request on the broker to the samples at the controller."""

from edgeloop_protocol.messages import Ask, Request, Said, encode
from edgeloop_protocol.topics import Down

EXAMPLES = 5


def test_examples_that_are_asked_for_come_and_no_others(
    agent, controller, artifact_server, make_package, wait_until
):
    """EL-DIAG-5. Nothing else is sampled here, and one feature is private."""
    package = make_package("1")
    artifact_server.publish(package)
    text = agent.config_path.read_text()
    agent.config_path.write_text(
        text.replace("sample_fraction = 0.2", 'sample_fraction = 0.0\nprivate_features = ["b"]')
    )
    agent.start()
    controller.offer(package)
    wait_until(lambda: controller.runs(package))
    hello = controller.hellos[-1]
    request = Request(
        id="1" * 16,
        asks=Ask.CAPTURE,
        said=Said(epoch=hello.epoch, sequence=hello.sequence),
        slot="main",
        examples_max=EXAMPLES,
    )
    assert not controller.bodies("sample")
    for _ in range(2):  # it is done once for an id
        controller.raw(Down.REQUEST, encode(request))
    wait_until(lambda: len(controller.bodies("sample")) >= EXAMPLES)
    windows = len(controller.bodies("window"))
    wait_until(lambda: len(controller.bodies("window")) >= windows + 2)
    samples = controller.bodies("sample")
    assert len(samples) == EXAMPLES
    assert all(one.features[1] is None and one.features[0] is not None for one in samples)
