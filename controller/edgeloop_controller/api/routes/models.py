"""Publishing and reading model versions."""

from typing import Annotated

from fastapi import APIRouter, File, Response, UploadFile

from edgeloop.documents import fleet as documents
from edgeloop.documents import loop as shapes
from edgeloop.documents.base import Document, Items
from edgeloop_controller.api.context import Context, Services
from edgeloop_controller.config import MANIFEST_TOML_MAX_BYTES
from edgeloop_controller.errors import RefusedInputError, TooLargeError
from edgeloop_controller.services.lineage import trace
from edgeloop_controller.services.publishing import Published
from edgeloop_controller.store import devices, versions
from edgeloop_controller.store.tables import Version

router = APIRouter(prefix="/models", tags=["models"])


@router.post("/{name}/versions/{version}", status_code=201)
def publish(
    name: str,
    version: str,
    services: Context,
    response: Response,
    model: Annotated[UploadFile, File(description="the ONNX file")],
    manifest: Annotated[UploadFile | None, File(description="model.toml")] = None,
    baseline: Annotated[UploadFile | None, File(description="training features, Parquet")] = None,
) -> documents.PublishedVersion:
    """201: published. 200: the same was published before. 409: other bytes were."""
    limits = services.config.limits
    published = services.publishing.publish_files(
        _read(model, limits.upload_max_bytes, "the model"),
        name,
        version,
        _text(manifest),
        _read(baseline, limits.baseline_max_bytes, "the baseline") if baseline else None,
    )
    return published_version(published, services, response)


def published_version(
    published: Published, services: Services, response: Response
) -> documents.PublishedVersion:
    if not published.created:
        response.status_code = 200
    detail = show_version(published.manifest.name, published.manifest.version, services)
    return documents.PublishedVersion(created=published.created, **_fields(detail))


@router.get("")
def list_models(services: Context) -> Items[documents.ModelSummary]:
    with services.database.reading() as session:
        names: dict[str, list[Version]] = {}
        for row in versions.every(session):
            names.setdefault(row.name, []).append(row)
        counts = devices.champions(session)
    return Items(items=[_summary(rows, counts) for rows in names.values()])


@router.get("/{name}")
def show_model(name: str, services: Context) -> documents.ModelDetail:
    with services.database.reading() as session:
        rows = list(versions.require_model(session, name))
        counts = devices.champions(session)
    items = [version_summary(row, counts) for row in rows]
    return documents.ModelDetail(items=items, **_fields(_summary(rows, counts)))


@router.get("/{name}/versions/{version}")
def show_version(name: str, version: str, services: Context) -> documents.VersionDetail:
    with services.database.reading() as session:
        row = versions.require(session, name, version)
        summary = version_summary(row, devices.champions(session))
    manifest = services.registry.manifest(row.manifest_digest)
    return documents.VersionDetail(manifest=manifest, **_fields(summary))


@router.get("/{name}/versions/{version}/lineage")
def show_lineage(name: str, version: str, services: Context) -> shapes.LineageDocument:
    """Where the version comes from, read backwards."""
    with services.database.reading() as session:
        links = trace(session, services.registry, name, version)
    return shapes.LineageDocument(
        chain=[
            shapes.LinkDocument(kind=link.kind, text=link.text, document=link.document)
            for link in links
        ],
        text="\n".join(link.text for link in links),
    )


def version_summary(row: Version, counts: dict[str, int]) -> documents.VersionSummary:
    return documents.VersionSummary(
        name=row.name,
        version=row.version,
        manifest_digest=row.manifest_digest,
        artifact_digest=row.artifact_digest,
        artifact_size_bytes=row.artifact_size_bytes,
        published_at=row.published_at,
        training_run_id=row.training_run_id,
        devices=counts.get(row.manifest_digest, 0),
    )


def _summary(rows: list[Version], counts: dict[str, int]) -> documents.ModelSummary:
    latest = rows[-1]
    return documents.ModelSummary(
        name=latest.name,
        versions=len(rows),
        latest=latest.version,
        published_at=latest.published_at,
        devices=sum(counts.get(row.manifest_digest, 0) for row in rows),
    )


def _fields(document: Document) -> dict[str, object]:
    return {key: getattr(document, key) for key in type(document).model_fields}


def _read(upload: UploadFile, limit: int, what: str) -> bytes:
    content = upload.file.read(limit + 1)
    if len(content) > limit:
        raise TooLargeError(
            f"{what} is above the limit of {limit} bytes",
            hint="raise it in [limits] of the controller's configuration",
        )
    return content


def _text(upload: UploadFile | None) -> str | None:
    if upload is None:
        return None
    content = _read(upload, MANIFEST_TOML_MAX_BYTES, "the manifest")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise RefusedInputError(
            f"the manifest is not UTF-8 text: {error}", hint="send model.toml, a TOML file"
        ) from error
