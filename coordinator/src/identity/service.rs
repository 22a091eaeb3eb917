//! `tritmark.v1.Enrollment` and `tritmark.v1.Identities`.

use std::{sync::Arc, time::Duration};

use tonic::{Request, Response, Status};
use tracing::error;
use tritmark_proto::wire::{
    self, enrollment_server::Enrollment as EnrollmentRpc, identities_server::Identities,
};

use super::{Enrollment, IdentityError, NewToken, Office, StoredIdentity};
use crate::server::{AuditNote, Peer};

/// Gives certificates.
#[derive(Clone, Debug)]
pub(crate) struct EnrollmentService(pub(crate) Arc<Office>);

/// Serves administrators.
#[derive(Clone, Debug)]
pub(crate) struct IdentitiesService(pub(crate) Arc<Office>);

#[tonic::async_trait]
impl EnrollmentRpc for EnrollmentService {
    async fn enroll(
        &self,
        request: Request<wire::EnrollRequest>,
    ) -> Result<Response<wire::Credentials>, Status> {
        let wire::EnrollRequest {
            token_secret,
            csr_der,
            name,
            agent_id,
            signing_key,
            signing_proof,
        } = request.into_inner();
        let invalid = |field: &str| Status::invalid_argument(format!("field `{field}` is wrong"));
        let agent_id = match agent_id.as_str() {
            "" => None,
            id => Some(id.parse().map_err(|_| invalid("agent_id"))?),
        };
        let signing = match (signing_key.as_slice(), signing_proof.as_slice()) {
            ([], []) => None,
            (key, proof) => Some((
                key.try_into().map_err(|_| invalid("signing_key"))?,
                proof.try_into().map_err(|_| invalid("signing_proof"))?,
            )),
        };
        let enrollment = Enrollment {
            secret: token_secret
                .try_into()
                .map_err(|_| invalid("token_secret"))?,
            csr_der,
            name,
            agent_id,
            signing,
        };
        let identity = self.0.enroll(enrollment).await.map_err(status)?;
        Ok(credentials(&self.0, identity))
    }

    async fn renew(
        &self,
        request: Request<wire::RenewRequest>,
    ) -> Result<Response<wire::Credentials>, Status> {
        let serial = request
            .extensions()
            .get::<Peer>()
            .and_then(Peer::identity)
            .map(|identity| identity.serial.clone())
            .ok_or_else(|| Status::unauthenticated("a certificate is needed to renew it"))?;
        let identity = self
            .0
            .renew(&serial, &request.into_inner().csr_der)
            .await
            .map_err(status)?;
        Ok(credentials(&self.0, identity))
    }
}

fn credentials(office: &Office, identity: StoredIdentity) -> Response<wire::Credentials> {
    let note = AuditNote(format!(
        "certificate {} for {} {}",
        identity.serial, identity.role, identity.name
    ));
    let mut response = Response::new(office.credentials(identity));
    response.extensions_mut().insert(note);
    response
}

#[tonic::async_trait]
impl Identities for IdentitiesService {
    async fn create_token(
        &self,
        request: Request<wire::CreateTokenRequest>,
    ) -> Result<Response<wire::CreateTokenResponse>, Status> {
        let wire::CreateTokenRequest {
            role,
            labels,
            name,
            valid_seconds,
        } = request.into_inner();
        let new = NewToken {
            role: role
                .parse()
                .map_err(|error: tritmark_proto::identity::NoRole| {
                    Status::invalid_argument(error.to_string())
                })?,
            name: Some(name).filter(|name| !name.is_empty()),
            labels: labels.into_iter().collect(),
            valid: Duration::from_secs(valid_seconds),
        };
        let note = AuditNote(format!("token for {role}"));
        let (token, expires_unix_s) = self.0.create_token(new).await.map_err(status)?;
        let mut response = Response::new(wire::CreateTokenResponse {
            token: token.to_string(),
            expires_unix_s,
        });
        response.extensions_mut().insert(note);
        Ok(response)
    }

    async fn revoke(
        &self,
        request: Request<wire::RevokeRequest>,
    ) -> Result<Response<wire::RevokeResponse>, Status> {
        let wire::RevokeRequest {
            name_or_serial,
            reason,
        } = request.into_inner();
        let serials = self
            .0
            .revoke(&name_or_serial, &reason)
            .await
            .map_err(status)?;
        let note = AuditNote(format!("revoked {}: {reason}", serials.join(", ")));
        let mut response = Response::new(wire::RevokeResponse { serials });
        response.extensions_mut().insert(note);
        Ok(response)
    }

    async fn list_identities(
        &self,
        _: Request<wire::ListIdentitiesRequest>,
    ) -> Result<Response<wire::ListIdentitiesResponse>, Status> {
        let identities = self.0.store().identities().await.map_err(status)?;
        let identities = identities.into_iter().map(info).collect();
        Ok(Response::new(wire::ListIdentitiesResponse { identities }))
    }
}

fn info(identity: StoredIdentity) -> wire::IdentityInfo {
    let StoredIdentity {
        serial,
        name,
        role,
        labels,
        agent_id: _,
        signing_key: _,
        certificate_pem: _,
        not_before_unix_s,
        not_after_unix_s,
        revoked_unix_s,
    } = identity;
    wire::IdentityInfo {
        serial,
        name,
        role: role.name().to_owned(),
        labels: labels.into_iter().collect(),
        not_before_unix_s,
        not_after_unix_s,
        revoked_unix_s,
    }
}

fn status(error: IdentityError) -> Status {
    let message = error.to_string();
    match error {
        IdentityError::TokenUnknown | IdentityError::TokenExpired => {
            Status::permission_denied(message)
        }
        IdentityError::NameTaken(_) => Status::already_exists(message),
        IdentityError::Nobody(_) => Status::not_found(message),
        IdentityError::Request(_)
        | IdentityError::Name(_)
        | IdentityError::Role(_)
        | IdentityError::TokenTime
        | IdentityError::Enrollment(_) => Status::invalid_argument(message),
        error => {
            error!(
                error = &error as &dyn std::error::Error,
                "the identities' office fails"
            );
            Status::internal(message)
        }
    }
}
