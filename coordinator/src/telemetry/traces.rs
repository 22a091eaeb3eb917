//! Sends spans to a collector that speaks OTLP over gRPC.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, warn};

/// Spans that may wait for the collector; further ones are lost.
const QUEUE: usize = 8192;
/// Most spans in one message.
const BATCH: usize = 512;
/// Longest time a span waits for others to go with.
const GATHER: Duration = Duration::from_secs(1);
/// Longest time a message may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Times a message is sent before its spans are lost.
const TRIES: u32 = 3;

/// Why traces cannot be sent anywhere.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// It is no address, or not one in plain text.
    #[error("`{0}` is no collector's address: http://HOST:PORT is, e.g. http://127.0.0.1:4317")]
    Address(String),
}

/// Where spans go.
#[derive(Clone, Debug)]
pub struct Traces {
    spans: mpsc::Sender<Span>,
    lost: Arc<AtomicU64>,
}

impl Traces {
    /// Starts sending to the collector at `address`, an `http://` URL, within a tokio runtime. The
    /// collector may be there later, or never.
    ///
    /// The task ends when the last clone of the result is dropped and what waited is sent.
    ///
    /// # Errors
    /// [`TracesError::Address`]. Certificates are not spoken here: a collector on another machine is
    /// reached through one on this.
    pub fn start(address: &str) -> Result<(Self, JoinHandle<()>), TracesError> {
        let wrong = || TracesError::Address(address.to_owned());
        let endpoint: Endpoint = address.parse().map_err(|_| wrong())?;
        if endpoint.uri().scheme_str() != Some("http") {
            return Err(wrong());
        }
        let channel = endpoint
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT)
            .connect_lazy();
        let (spans, waiting) = mpsc::channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(send_all(
            TraceServiceClient::new(channel),
            waiting,
            Arc::clone(&lost),
        ));
        Ok((Self { spans, lost }, task))
    }

    /// Returns the count of spans that were not taken.
    pub(crate) fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }

    /// Hands a span over; it is lost where too many wait.
    pub(super) fn send(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn send_all(
    mut client: TraceServiceClient<Channel>,
    mut waiting: mpsc::Receiver<Span>,
    lost: Arc<AtomicU64>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut is_away = false;
    loop {
        if waiting.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        let gathered = Instant::now() + GATHER;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            match tokio::time::timeout_at(gathered, waiting.recv_many(&mut batch, room)).await {
                Ok(n) if n > 0 => {}
                _ => break,
            }
        }
        let n = batch.len() as u64;
        let request = request(std::mem::take(&mut batch));
        match send(&mut client, request).await {
            Ok(()) => is_away = false,
            Err(status) => {
                lost.fetch_add(n, Ordering::Relaxed);
                // Once, and not for every batch of an outage.
                if is_away {
                    debug!(%status, n, "spans are lost");
                } else {
                    warn!(%status, n, "the collector of traces does not take them: spans are lost");
                }
                is_away = true;
            }
        }
    }
}

async fn send(
    client: &mut TraceServiceClient<Channel>,
    request: ExportTraceServiceRequest,
) -> Result<(), tonic::Status> {
    let mut tries = 1;
    loop {
        match client.export(request.clone()).await {
            Ok(answer) => {
                let refused = answer.into_inner().partial_success;
                return match refused.filter(|refused| refused.rejected_spans > 0) {
                    Some(refused) => Err(tonic::Status::invalid_argument(refused.error_message)),
                    None => Ok(()),
                };
            }
            // As OTLP says: these alone may be tried again.
            Err(status)
                if tries < TRIES
                    && matches!(
                        status.code(),
                        tonic::Code::Unavailable
                            | tonic::Code::DeadlineExceeded
                            | tonic::Code::Cancelled
                            | tonic::Code::Aborted
                    ) =>
            {
                tokio::time::sleep(Duration::from_millis(200 << tries)).await;
                tries += 1;
            }
            Err(status) => return Err(status),
        }
    }
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let attribute = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![
                    attribute("service.name", "tritmark-coordinator"),
                    attribute("service.version", env!("CARGO_PKG_VERSION")),
                ],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "tritmark".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}
