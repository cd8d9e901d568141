//! New connections: connected, and greeted where the protocol has a greeting.

use load::ErrorKind;

use super::{
    protocol::Protocol,
    resp::{self, Reply},
};
use crate::{
    http::TargetHealth,
    settings::Login,
    wire::{ClientConnection, not_dialled},
};

/// Why a server did not do what it was asked.
#[derive(Clone, Debug)]
pub(super) struct ServerFailure {
    pub(super) kind: ErrorKind,
    /// In the server's words, if it has said anything.
    pub(super) detail: Option<Box<str>>,
}

impl From<ErrorKind> for ServerFailure {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, detail: None }
    }
}

impl ServerFailure {
    /// The server has said why it does nothing.
    pub(super) fn refused(reason: &[u8]) -> Self {
        let reason = String::from_utf8_lossy(&reason[..reason.len().min(200)]);
        Self { kind: ErrorKind::Unavailable, detail: Some(reason.into()) }
    }

    /// In a sentence.
    pub(super) fn words(&self) -> String {
        self.detail.as_ref().map_or_else(|| self.kind.name(), |detail| detail.to_string())
    }
}

/// A new connection to a server.
pub(super) async fn dial(server: &TargetHealth, kernel_timestamps: bool) -> Result<ClientConnection, ServerFailure> {
    let epoch = server.epoch();
    let stream = server.connect().await.map_err(|error| not_dialled(&error))?;
    let mut connection = ClientConnection::over(stream, epoch, kernel_timestamps)?;
    if Protocol::of(server.target.scheme) == Protocol::Resp {
        greet(&mut connection, server.target.login.as_ref()).await?;
    }
    Ok(connection)
}

/// RESP3 and the login in one command; AUTH alone where there is no HELLO, before Redis 6, which then speaks RESP2.
async fn greet(connection: &mut ClientConnection, login: Option<&Login>) -> Result<(), ServerFailure> {
    let mut request = Vec::new();
    match login {
        Some(Login { user, password }) => {
            let user = if user.is_empty() { "default" } else { user };
            resp::command(&mut request, &[b"HELLO", b"3", b"AUTH", user.as_bytes(), password.as_bytes()]);
        }
        None => resp::command(&mut request, &[b"HELLO", b"3"]),
    }
    let refused = connection.exchange(&request, |buffer, _| refusal(buffer)).await?;
    let Some(reason) = refused else { return Ok(()) };
    if !reason.starts_with(b"ERR unknown command") {
        return Err(ServerFailure::refused(&reason));
    }
    let Some(Login { user, password }) = login else { return Ok(()) };
    request.clear();
    match user.as_str() {
        "" => resp::command(&mut request, &[b"AUTH", password.as_bytes()]),
        user => resp::command(&mut request, &[b"AUTH", user.as_bytes(), password.as_bytes()]),
    }
    match connection.exchange(&request, |buffer, _| refusal(buffer)).await? {
        Some(reason) => Err(ServerFailure::refused(&reason)),
        None => Ok(()),
    }
}

/// The error in a whole reply, if it is one.
fn refusal(buffer: &[u8]) -> Result<Option<Option<Vec<u8>>>, ErrorKind> {
    let reply = resp::parse(buffer)?;
    Ok(reply.map(|(reply, _)| if let Reply::Error(reason) = reply { Some(reason.to_vec()) } else { None }))
}
