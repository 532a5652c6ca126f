//! What commands may be given to do: the profiles that are loaded.

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::access::Reader;
use crate::routes::App;
use crate::wire;

/// Lists the profiles that commands can run with, by name.
#[utoipa::path(get, path = "/profiles", operation_id = "profiles", tag = "policy",
    responses((status = 200, description = "For people", body = Vec<wire::Profile>)))]
pub(crate) async fn profiles(State(app): State<App>, _: Reader) -> Response {
    let all: Vec<_> = app.gateway.profiles().collect();
    axum::Json(all.iter().map(wire::Profile::from).collect::<Vec<_>>()).into_response()
}
