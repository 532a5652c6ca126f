//! Spans of requests for an OpenTelemetry collector, over OTLP/HTTP with protobuf. Off unless the environment names one, as
//! OpenTelemetry's own variables do.
//!
//! The fields of a request's span are copied one by one, by name: what somebody adds to a log line does not leave the host
//! by itself.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterFn, Filtered, LevelFilter};
use tracing_subscriber::layer::{Context as Around, Layer};
use tracing_subscriber::registry::LookupSpan;

/// How long the last spans may take to be sent when the server ends.
const LAST_WORD: Duration = Duration::from_secs(5);
/// How long the collector may take for one batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where the environment says to send to.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// The way to the collector. Dropping it sends what waits, in bounded time.
pub(crate) struct Exporting(SdkTracerProvider);

impl Drop for Exporting {
    fn drop(&mut self) {
        // What could not be sent is lost, and the client below has said so.
        let _ = self.0.shutdown_with_timeout(LAST_WORD);
    }
}

/// The layer for one subscriber.
pub(crate) type Spans<S> = Filtered<RequestSpans, FilterFn, S>;

/// Returns the layer and the way to the collector, where the environment names one.
///
/// # Errors
/// When what it says cannot be used; the text names no address, which may hold a password.
pub(crate) fn start<S>() -> Result<Option<(Spans<S>, Exporting)>, &'static str>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if !ENDPOINTS.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
        return Ok(None);
    }
    let exporter = SpanExporter::builder().with_http().with_http_client(Client).build();
    let exporter = exporter.map_err(|_| "no spans will be sent: the OTEL_EXPORTER_OTLP_… variables cannot be used")?;
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("provara");
    }
    let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let layer = RequestSpans { tracer: provider.tracer("provara") };
    let chosen: fn(&Metadata<'_>) -> bool = is_request;
    let filter = FilterFn::new(chosen).with_max_level_hint(LevelFilter::INFO);
    Ok(Some((layer.with_filter(filter), Exporting(provider))))
}

fn is_request(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && *metadata.level() == Level::INFO && metadata.target() == "provara_server::trace"
}

/// Follows requests' spans.
pub(crate) struct RequestSpans {
    tracer: SdkTracer,
}

impl<S> Layer<S> for RequestSpans
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, around: Around<'_, S>) {
        let Some(span) = around.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let name = format!("{} {}", fields.method, fields.route);
        let known = vec![
            KeyValue::new("http.request.method", fields.method.clone()),
            KeyValue::new("http.route", fields.route.clone()),
            KeyValue::new("provara.request_id", fields.request_id.clone()),
        ];
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_attributes(known);
        let open = self.tracer.build_with_context(builder, &fields.parent());
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, around: Around<'_, S>) {
        let Some(span) = around.span(id) else { return };
        let mut fields = Fields::default();
        record.record(&mut fields);
        let mut extensions = span.extensions_mut();
        let Some(open) = extensions.get_mut::<Span>() else { return };
        if let Some(principal) = fields.principal {
            open.set_attribute(KeyValue::new("provara.principal", principal));
        }
        if let Some(status) = fields.status {
            open.set_attribute(KeyValue::new("http.response.status_code", status));
            if status >= 500 {
                open.set_status(Status::error(""));
            }
        }
    }

    fn on_close(&self, id: Id, around: Around<'_, S>) {
        if let Some(mut open) = around.span(&id).and_then(|span| span.extensions_mut().remove::<Span>()) {
            open.end();
        }
    }
}

/// What is copied.
#[derive(Default)]
struct Fields {
    method: String,
    route: String,
    request_id: String,
    trace_id: Option<String>,
    parent_id: Option<String>,
    sampled: bool,
    principal: Option<String>,
    status: Option<i64>,
}

impl Fields {
    /// The caller's span, where it named one.
    fn parent(&self) -> Context {
        let trace = self.trace_id.as_deref().and_then(|id| TraceId::from_hex(id).ok());
        let span = self.parent_id.as_deref().and_then(|id| SpanId::from_hex(id).ok());
        let (Some(trace), Some(span)) = (trace, span) else { return Context::new() };
        let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        Context::new().with_remote_span_context(SpanContext::new(trace, span, flags, true, TraceState::default()))
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        let value = value.to_owned();
        match field.name() {
            "method" => self.method = value,
            "route" => self.route = value,
            "request_id" => self.request_id = value,
            "trace_id" => self.trace_id = Some(value),
            "parent_id" => self.parent_id = Some(value),
            "principal" => self.principal = Some(value),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "status" {
            self.status = i64::try_from(value).ok();
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "sampled" {
            self.sampled = value;
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// The client that checkpoints are sent with. It blocks, on the thread that does nothing but send spans.
#[derive(Debug)]
struct Client;

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let answer = send(request);
            // A collector that cannot be reached is no reason to stop; each batch that was lost is told of.
            match &answer {
                Ok(answer) if !answer.status().is_success() => {
                    tracing::warn!(status = answer.status().as_u16(), "the collector refused spans");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "could not send spans"),
            }
            answer
        })
    }
}

fn send(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).max_redirects(0);
    let agent = config.http_status_as_error(false).build().new_agent();
    let (parts, body) = request.into_parts();
    let mut answer = agent.run(Request::from_parts(parts, body.to_vec()))?;
    let body = answer.body_mut().with_config().limit(1 << 20).read_to_vec()?;
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = answer.status();
    Ok(response)
}
