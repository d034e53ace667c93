//! Logs to standard error, and traces to a collector.

use std::io::IsTerminal;
use std::time::Duration;

use async_trait::async_trait;
use headwater::{LogFormat, TelemetrySettings, TraceSettings};
use headwater_schema::Problem;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// How long one export may take.
const EXPORT: Duration = Duration::from_secs(10);

/// Logs and traces under way.
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts both. `RUST_LOG` goes before the setting.
    pub fn start(settings: &TelemetrySettings) -> Result<Self, Problem> {
        let logs = &settings.logs;
        let filter = EnvFilter::try_from_default_env().or_else(|_| EnvFilter::try_new(&logs.level));
        let filter = filter.map_err(|e| {
            Problem::user(
                "invalid-project",
                format!("`{}` is no level of logs", logs.level),
            )
            .field("telemetry.logs.level")
            .detail(e)
            .hint("write error, warn, info, debug or trace")
        })?;
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        let lines: Box<dyn Layer<Registry> + Send + Sync> = match logs.format {
            LogFormat::Text => lines.with_filter(filter).boxed(),
            LogFormat::Json => lines
                .json()
                .with_span_list(false)
                .with_filter(filter)
                .boxed(),
        };
        let mut layers = vec![lines];
        let traces = settings.traces.as_ref().map(provider).transpose()?;
        if let Some(provider) = &traces {
            opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
            // Our own spans alone: those of the exporter's connections would be exported in turn.
            let own = Targets::new().with_target("headwater", tracing::Level::INFO);
            let tracer = provider.tracer("headwater");
            let layer = tracing_opentelemetry::layer().with_tracer(tracer);
            layers.push(layer.with_filter(own).boxed());
        }
        // Fails only where something has started it before.
        let _ = tracing_subscriber::registry().with(layers).try_init();
        Ok(Self { traces })
    }

    /// Sends what waits.
    pub fn finish(self) {
        if let Some(Err(error)) = self.traces.map(|traces| traces.shutdown()) {
            tracing::warn!(%error, "the last traces weren't sent");
        }
    }
}

fn provider(settings: &TraceSettings) -> Result<SdkTracerProvider, Problem> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new())
        .with_endpoint(&settings.endpoint)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(EXPORT)
        .build();
    let exporter = exporter.map_err(|e| {
        Problem::user("invalid-project", "traces can't be sent")
            .field("telemetry.traces.endpoint")
            .detail(e)
            .hint("write a URL, as in http://127.0.0.1:4318/v1/traces")
    })?;
    let sampler = Sampler::TraceIdRatioBased(settings.sample_ratio);
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(sampler)))
        .with_resource(
            Resource::builder()
                .with_service_name(settings.service_name.clone())
                .build(),
        )
        .build())
}

/// Sends over the client that the command line uses. It blocks, on the exporter's own thread.
#[derive(Debug)]
struct Client(ureq::Agent);

impl Client {
    fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(EXPORT))
            .http_status_as_error(false)
            .build();
        Self(config.into())
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts, body.to_vec());
        let answer = self.0.run(request).inspect_err(|error| {
            tracing::warn!(%error, "traces weren't sent");
        });
        let (parts, mut body) = answer?.into_parts();
        if !parts.status.is_success() {
            tracing::warn!(status = parts.status.as_u16(), "traces weren't taken");
        }
        Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
    }
}
