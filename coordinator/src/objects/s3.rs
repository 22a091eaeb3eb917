//! A bucket for tests: what `object_store` asks of S3, over real HTTP, as S3's reference has it.
//!
//! Path-style `PUT`, `GET` with `Range`, `HEAD`, `DELETE`, `ListObjectsV2` and the four calls of a
//! multipart upload, whose parts but the last have at least five MiB. Requests without a signature of
//! version 4 are refused; the signature itself is not computed anew.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::{self, Body},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
    response::Response,
};
use tokio::{net::TcpListener, task::JoinHandle};

const MIN_PART_BYTES: usize = 5 << 20;

#[derive(Default)]
pub(crate) struct Bucket {
    pub(crate) objects: BTreeMap<String, Vec<u8>>,
    uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    n_uploads: u32,
    /// Every request: method and what it was about.
    pub(crate) asked: Vec<String>,
    /// So many requests are answered with 503 first.
    pub(crate) n_faults: u32,
}

type Shared = Arc<Mutex<Bucket>>;

/// A server with one bucket, `bench`.
pub(crate) struct S3 {
    address: SocketAddr,
    shared: Shared,
    served: JoinHandle<()>,
}

impl S3 {
    pub(crate) async fn start() -> Self {
        let shared = Shared::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let served = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            shared,
            served,
        }
    }

    /// Returns the settings with which a client finds it.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "someone".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "a secret".to_owned()),
            ("AWS_REGION", "eu-central-1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    pub(crate) fn bucket(&self) -> MutexGuard<'_, Bucket> {
        lock(&self.shared)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.served.abort();
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Bucket> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reply(status: StatusCode, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response
}

fn refusal(status: StatusCode, code: &str) -> Response {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    reply(status, text)
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", &blake3::hash(bytes).to_hex()[..32])
}

fn with_etag(status: StatusCode, bytes: &[u8], body: Vec<u8>) -> Response {
    let mut response = reply(status, body);
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag(bytes).parse().unwrap());
    let modified = "Thu, 26 Nov 2026 12:00:00 GMT";
    headers.insert(header::LAST_MODIFIED, modified.parse().unwrap());
    response
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let body = body::to_bytes(body, 1 << 30).await.unwrap().to_vec();
    let mut bucket = lock(&shared);
    bucket.asked.push(format!("{} {}", parts.method, parts.uri));
    if bucket.n_faults > 0 {
        bucket.n_faults -= 1;
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
    }
    let signature = parts.headers.get(header::AUTHORIZATION);
    let signature = signature
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !signature.starts_with("AWS4-HMAC-SHA256 Credential=someone/")
        || !signature.contains("/eu-central-1/s3/aws4_request")
    {
        return refusal(StatusCode::FORBIDDEN, "AccessDenied");
    }
    let Some(key) = parts.uri.path().strip_prefix("/bench") else {
        return refusal(StatusCode::NOT_FOUND, "NoSuchBucket");
    };
    let key = key.trim_start_matches('/').to_owned();
    match (&parts.method, query.get("uploadId")) {
        (&Method::GET, _) if key.is_empty() => list(&bucket, &query),
        (&Method::GET | &Method::HEAD, None) => get(&bucket, &key, &parts),
        (&Method::PUT, None) => {
            let response = with_etag(StatusCode::OK, &body, Vec::new());
            bucket.objects.insert(key, body);
            response
        }
        (&Method::DELETE, None) => {
            bucket.objects.remove(&key);
            reply(StatusCode::NO_CONTENT, Body::empty())
        }
        (&Method::POST, None) if query.contains_key("uploads") => {
            bucket.n_uploads += 1;
            let id = format!("upload-{}", bucket.n_uploads);
            bucket.uploads.insert(id.clone(), BTreeMap::new());
            reply(
                StatusCode::OK,
                format!(
                    "<InitiateMultipartUploadResult><Bucket>bench</Bucket><Key>{key}</Key>\
                     <UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                ),
            )
        }
        (method, Some(id)) => multipart(&mut bucket, method, key, id, &query, body),
        _ => refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    }
}

fn get(bucket: &Bucket, key: &str, parts: &Parts) -> Response {
    let Some(bytes) = bucket.objects.get(key) else {
        return refusal(StatusCode::NOT_FOUND, "NoSuchKey");
    };
    let Some(range) = range(&parts.headers, bytes.len()) else {
        let mut response = with_etag(StatusCode::OK, bytes, bytes.clone());
        if parts.method == Method::HEAD {
            let length = bytes.len().into();
            *response.body_mut() = Body::empty();
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, length);
        }
        return response;
    };
    if range.start >= bytes.len() {
        return refusal(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
    }
    let content_range = format!("bytes {}-{}/{}", range.start, range.end - 1, bytes.len());
    let mut response = with_etag(StatusCode::PARTIAL_CONTENT, bytes, bytes[range].to_vec());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_RANGE, content_range.parse().unwrap());
    response
}

/// Reads `bytes=a-b`, of which the last byte belongs to it and may lie beyond the end.
fn range(headers: &HeaderMap, n_bytes: usize) -> Option<std::ops::Range<usize>> {
    let text = headers.get(header::RANGE)?.to_str().ok()?;
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let to: usize = to.parse().unwrap_or(usize::MAX - 1);
    Some(from.parse().ok()?..n_bytes.min(to + 1))
}

fn multipart(
    bucket: &mut Bucket,
    method: &Method,
    key: String,
    id: &str,
    query: &BTreeMap<String, String>,
    body: Vec<u8>,
) -> Response {
    let Some(parts) = bucket.uploads.get_mut(id) else {
        return refusal(StatusCode::NOT_FOUND, "NoSuchUpload");
    };
    match *method {
        Method::PUT => {
            let number = query
                .get("partNumber")
                .and_then(|number| number.parse().ok());
            let Some(number) = number.filter(|number| (1..=10_000).contains(number)) else {
                return refusal(StatusCode::BAD_REQUEST, "InvalidArgument");
            };
            let response = with_etag(StatusCode::OK, &body, Vec::new());
            parts.insert(number, body);
            response
        }
        Method::POST => {
            let text = String::from_utf8_lossy(&body);
            let named = text.matches("<Part>").count();
            let last = parts.len();
            let mut sizes = parts.values().take(last.saturating_sub(1)).map(Vec::len);
            if named != last || sizes.any(|size| size < MIN_PART_BYTES) {
                return refusal(StatusCode::BAD_REQUEST, "EntityTooSmall");
            }
            let parts = bucket.uploads.remove(id).unwrap_or_default();
            let whole: Vec<u8> = parts.into_values().flatten().collect();
            let text = format!(
                "<CompleteMultipartUploadResult><Location>x</Location><Bucket>bench</Bucket>\
                 <Key>{key}</Key><ETag>{}</ETag></CompleteMultipartUploadResult>",
                etag(&whole)
            );
            bucket.objects.insert(key, whole);
            reply(StatusCode::OK, text)
        }
        Method::DELETE => {
            bucket.uploads.remove(id);
            reply(StatusCode::NO_CONTENT, Body::empty())
        }
        _ => refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    }
}

fn list(bucket: &Bucket, query: &BTreeMap<String, String>) -> Response {
    let prefix = query.get("prefix").cloned().unwrap_or_default();
    let mut contents = String::new();
    let found = bucket.objects.iter();
    for (key, bytes) in found.filter(|(key, _)| key.starts_with(&prefix)) {
        let _ = write!(
            contents,
            "<Contents><Key>{key}</Key><LastModified>2026-11-26T12:00:00.000Z</LastModified>\
             <ETag>{}</ETag><Size>{}</Size></Contents>",
            etag(bytes),
            bytes.len()
        );
    }
    reply(
        StatusCode::OK,
        format!(
            "<ListBucketResult><Name>bench</Name><Prefix>{prefix}</Prefix>\
             <IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
        ),
    )
}

impl Bucket {
    /// Returns how many uploads were begun and neither ended nor given up.
    pub(crate) fn n_open_uploads(&self) -> usize {
        self.uploads.len()
    }
}
