//! How requests are answered, and who may ask for a change.

use std::net::SocketAddr;

use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Json, Request};
use axum::http::{StatusCode, header, request};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Proof that a request comes from this machine: it may change something. Who may *look* need not be trusted
/// with more.
#[derive(Clone, Copy, Debug)]
pub struct Local;

impl<S: Send + Sync> FromRequestParts<S> for Local {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Local, Response> {
        match parts.extensions.get() {
            Some(ConnectInfo::<SocketAddr>(peer)) if peer.ip().to_canonical().is_loopback() => Ok(Local),
            _ => Err(refuse(StatusCode::FORBIDDEN, "not_local", "only processes of this machine may change anything")),
        }
    }
}

/// What a request brings along.
#[derive(Clone, Copy, Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Response> {
        let refused = |error: JsonRejection| refuse(StatusCode::BAD_REQUEST, "bad_input", &error.body_text());
        Json::from_request(request, state).await.map(|Json(body)| Body(body)).map_err(refused)
    }
}

/// An error for people and programs.
pub fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    json(status, &json!({ "error": { "code": code, "message": message } }))
}

/// A value, and how it went.
pub fn json(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
