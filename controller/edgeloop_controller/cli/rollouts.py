"""`edgeloop rollout`."""

from typing import Annotated, Any, Final

import typer

from edgeloop.client import quoted
from edgeloop_controller.cli import output
from edgeloop_controller.cli import rollout_options as options
from edgeloop_controller.cli.connection import Json, VersionArgument, connected, split_version
from edgeloop_controller.cli.rollout_plan import show_plan
from edgeloop_controller.cli.rollout_view import show_rollout
from edgeloop_controller.cli.rollout_watch import watch_rollout

app = typer.Typer(no_args_is_help=True, help="Bring a version to devices, wave by wave.")

DEFAULT_WAVES: Final = "1,5%,25%,100%"

RolloutId = Annotated[int, typer.Argument(metavar="ROLLOUT")]


@app.command()
def start(
    version: VersionArgument,
    to: options.To,
    waves: options.Waves = DEFAULT_WAVES,
    slot: str = "main",
    soak: options.Soak = None,
    deadline: options.Deadline = None,
    max_failed: options.MaxFailed = None,
    max_disagreement: options.MaxDisagreement = None,
    min_compared: options.MinCompared = None,
    max_accuracy_drop: options.MaxAccuracyDrop = None,
    probation_seconds: options.ProbationSeconds = None,
    probation_examples: options.ProbationExamples = None,
    at: options.At = None,
    pace: options.Pace = None,
    max_unavailable: options.MaxUnavailable = None,
    unavailable_by: options.UnavailableBy = None,
    maintenance: options.Maintenance = None,
    approve: options.Approve = None,
    shadow: options.Shadow = None,
    shadow_examples: options.ShadowExamples = None,
    shadow_soak: options.ShadowSoak = None,
    shadow_deadline: options.ShadowDeadline = None,
    shadow_cpu: options.ShadowCpu = None,
    queue: options.Queue = False,
    preempt: options.Preempt = False,
    allow_empty: options.AllowEmpty = False,
    json: Json = False,
) -> None:
    """Start a rollout. Each wave must prove itself before the next; see `rollout plan` first."""
    body = options.request(
        version,
        to,
        waves,
        slot,
        {
            "soak_s": soak,
            "deadline_s": deadline,
            "max_failed_fraction": max_failed,
            "max_disagreement": max_disagreement,
            "min_compared": min_compared,
            "max_accuracy_drop": max_accuracy_drop,
            "shadow": options.shadow(
                shadow, shadow_examples, shadow_soak, shadow_deadline, shadow_cpu
            ),
        },
        {"min_s": probation_seconds, "min_examples": probation_examples},
        options.schedule(at, pace, max_unavailable, unavailable_by, maintenance)
        | {"approve": options.approve(approve, waves)},
    )
    body |= {"allow_empty": allow_empty, "if_busy": options.if_busy(queue, preempt)}
    with connected() as client:
        document = client.post("/rollouts", body)
    begun = "waits for others" if document["status"] == "queued" else "started"
    _result(document, json, f"rollout {document['id']} of {version} {begun}")


@app.command()
def plan(
    version: VersionArgument,
    to: options.To,
    waves: options.Waves = DEFAULT_WAVES,
    slot: str = "main",
    soak: options.Soak = None,
    deadline: options.Deadline = None,
    min_compared: options.MinCompared = None,
    probation_seconds: options.ProbationSeconds = None,
    at: options.At = None,
    pace: options.Pace = None,
    max_unavailable: options.MaxUnavailable = None,
    unavailable_by: options.UnavailableBy = None,
    maintenance: options.Maintenance = None,
    shadow: options.Shadow = None,
    shadow_examples: options.ShadowExamples = None,
    shadow_soak: options.ShadowSoak = None,
    shadow_deadline: options.ShadowDeadline = None,
    shadow_cpu: options.ShadowCpu = None,
    queue: options.Queue = False,
    preempt: options.Preempt = False,
    install: Annotated[
        float, typer.Option(metavar="SECONDS", help="from an offer to a commit, as you know it")
    ] = 60.0,
    json: Json = False,
) -> None:
    """Show what a rollout would do: who gets it when, who cannot and why, bytes, time."""
    body = options.request(
        version,
        to,
        waves,
        slot,
        {
            "soak_s": soak,
            "deadline_s": deadline,
            "min_compared": min_compared,
            "shadow": options.shadow(
                shadow, shadow_examples, shadow_soak, shadow_deadline, shadow_cpu
            ),
        },
        {"min_s": probation_seconds},
        options.schedule(at, pace, max_unavailable, unavailable_by, maintenance),
    )
    body |= {"install_s": install, "if_busy": options.if_busy(queue, preempt)}
    with connected() as client:
        document = client.post("/rollouts/plan", body)
    if json:
        output.print_json(document)
    else:
        show_plan(document)


@app.command("list")
def list_rollouts(json: Json = False) -> None:
    """Newest first."""
    with connected() as client:
        document = client.get("/rollouts")
    if json:
        output.print_json(document)
        return
    output.table(
        ("id", "version", "to", "status", "wave", "devices", "started", "verdict"),
        (_row(rollout) for rollout in document["items"]),
        "no rollout yet: edgeloop rollout start NAME@VERSION --to all",
    )


@app.command()
def show(
    rollout: RolloutId,
    watch: Annotated[
        bool, typer.Option("--watch", help="draw it as it goes, until it ends or Ctrl-C")
    ] = False,
    interval_s: Annotated[
        float, typer.Option("--interval", min=0.2, metavar="SECONDS", help="between two looks")
    ] = 1.0,
    json: Json = False,
) -> None:
    """One rollout with its gates and devices."""
    with connected() as client:
        if watch:
            watch_rollout(lambda: client.get(f"/rollouts/{rollout}"), interval_s, json)
            return
        document = client.get(f"/rollouts/{rollout}")
    if json:
        output.print_json(document)
    else:
        show_rollout(document)


@app.command()
def pause(rollout: RolloutId, json: Json = False) -> None:
    """Offer it to no more devices for now."""
    with connected() as client:
        document = client.post(f"/rollouts/{rollout}/pause")
    _result(document, json, f"rollout {rollout} is paused")


@app.command()
def resume(rollout: RolloutId, json: Json = False) -> None:
    """Go on from a pause."""
    with connected() as client:
        document = client.post(f"/rollouts/{rollout}/resume")
    _result(document, json, f"rollout {rollout} goes on")


@app.command()
def abort(
    rollout: RolloutId,
    reason: Annotated[str, typer.Option(help="kept with the rollout")] = "aborted by hand",
    json: Json = False,
) -> None:
    """End it; devices that have not committed go back."""
    with connected() as client:
        document = client.post(f"/rollouts/{rollout}/abort", {"reason": reason})
    _result(document, json, f"rollout {rollout} is aborted")


@app.command()
def approve(
    rollout: RolloutId,
    wave: Annotated[
        int | None, typer.Option(help="by default the next that waits; 0: the shadow phase")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="kept with it; by default EDGELOOP_ACTOR, or who you are")
    ] = None,
    json: Json = False,
) -> None:
    """Let a wave begin that waits for a person."""
    body = {"wave": wave, "by": by or options.actor()}
    with connected() as client:
        document = client.post(f"/rollouts/{rollout}/approve", body)
    newest = max(document["approvals"], key=lambda one: one["at"])
    what = f"wave {newest['wave']}" if newest["wave"] else "the shadow phase"
    _result(document, json, f"{what} of rollout {rollout} approved")


@app.command()
def rollback(
    rollout: RolloutId,
    reason: Annotated[str, typer.Option(help="kept with the rollout")] = "rolled back by hand",
    to: Annotated[
        str | None, typer.Option(metavar="NAME@VERSION", help="for all, not what each had before")
    ] = None,
    json: Json = False,
) -> None:
    """Take the version back from all that have it by this rollout, finished or not."""
    if to is not None:
        split_version(to)
    with connected() as client:
        document = client.post(f"/rollouts/{rollout}/rollback", {"reason": reason, "to": to})
    back = to or "what they had before"
    _result(document, json, f"rollout {rollout} is halted; its devices go back to {back}")


@app.command()
def hold(
    rollout: RolloutId,
    device: Annotated[str, typer.Argument()],
    reason: Annotated[str, typer.Option(help="kept with the rollout")] = "held out by hand",
    json: Json = False,
) -> None:
    """Keep a device out of a rollout; what it has by it goes back."""
    path = f"/rollouts/{rollout}/devices/{quoted(device)}/hold"
    with connected() as client:
        document = client.post(path, {"reason": reason})
    _result(document, json, f"{device} is held out of rollout {rollout}")


@app.command()
def release(
    rollout: RolloutId, device: Annotated[str, typer.Argument()], json: Json = False
) -> None:
    """Let a device that was held out take part again."""
    with connected() as client:
        document = client.post(f"/rollouts/{rollout}/devices/{quoted(device)}/release")
    _result(document, json, f"{device} takes part in rollout {rollout} again")


def _result(document: dict[str, Any], json: bool, sentence: str) -> None:
    if json:
        output.print_json(document)
    else:
        output.say(sentence)


def _row(rollout: dict[str, Any]) -> tuple[Any, ...]:
    counts = rollout["members"]
    return (
        rollout["id"],
        f"{rollout['name']}@{rollout['version']}",
        rollout["selector"],
        rollout["status"],
        f"{rollout['wave']}/{len(rollout['waves'])}",
        f"{counts['committed']}/{sum(counts.values())}",
        output.ago(rollout["started_at"]),
        rollout["verdict"],
    )
