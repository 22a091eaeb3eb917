//! The office by itself; `server/secure_tests` has it behind TLS.

use std::{
    collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration,
};

use proptest::prelude::*;
use rcgen::{CertificateParams, IsCa, KeyPair, SanType};
use tempfile::TempDir;
use tritmark_proto::identity::Claim;

use super::*;

mod stores;

fn policy() -> Policy {
    Policy::new(vec!["fleet.example.org".into(), "10.0.0.7".into()])
}

async fn office(folder: &TempDir) -> Office {
    Office::create(&folder.path().join(FOLDER), &policy(), None)
        .await
        .unwrap()
}

fn viewer(valid: Duration) -> NewToken {
    NewToken {
        role: Role::Viewer,
        name: None,
        labels: BTreeMap::new(),
        valid,
    }
}

fn enrollment(secret: [u8; 32], csr_der: Vec<u8>) -> Enrollment {
    Enrollment {
        secret,
        csr_der,
        name: "someone".into(),
        agent_id: None,
        signing: None,
    }
}

fn csr(params: &CertificateParams) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().der().to_vec()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn keys_are_for_their_owner_alone() {
    let folder = TempDir::new().unwrap();
    drop(office(&folder).await);
    let identity = folder.path().join(FOLDER);
    assert_eq!(mode(&identity), 0o700);
    for entry in fs::read_dir(&identity).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
    let key = identity.join("ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let refusal = Office::open(&identity, None).await.unwrap_err();
    assert!(matches!(refusal, IdentityError::Exposed(_)), "{refusal}");
}

#[tokio::test]
async fn an_authority_is_not_made_twice() {
    let folder = TempDir::new().unwrap();
    let first = office(&folder).await.authority().fingerprint();
    let identity = folder.path().join(FOLDER);
    let refusal = Office::create(&identity, &policy(), None)
        .await
        .unwrap_err();
    assert!(matches!(refusal, IdentityError::Exists(_)), "{refusal}");
    let again = Office::open(&identity, None).await.unwrap();
    assert_eq!(again.authority().fingerprint(), first);
    assert_eq!(*again.policy(), policy());
}

#[tokio::test]
async fn files_that_do_not_belong_together_are_refused() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    drop((office(&one).await, office(&two).await));
    let identity = one.path().join(FOLDER);
    fs::copy(
        two.path().join(FOLDER).join("ca.key"),
        identity.join("ca.key"),
    )
    .unwrap();
    let refusal = Office::open(&identity, None).await.unwrap_err();
    assert!(
        matches!(refusal, IdentityError::Damaged { .. }),
        "{refusal}"
    );
    fs::write(identity.join("policy.toml"), "names = 3").unwrap();
    let refusal = Office::open(&identity, None).await.unwrap_err().to_string();
    assert!(refusal.contains("policy.toml"), "{refusal}");
}

#[tokio::test]
async fn what_a_request_says_of_its_subject_is_ignored() {
    let folder = TempDir::new().unwrap();
    let office = office(&folder).await;
    let admin = Claim::Role {
        role: Role::Admin,
        name: "root".into(),
    };
    let mut wishes = CertificateParams::default();
    wishes.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    wishes.subject_alt_names = vec![
        SanType::URI(admin.to_string().try_into().unwrap()),
        SanType::DnsName("fleet.example.org".try_into().unwrap()),
    ];
    let (token, _) = office
        .create_token(viewer(Duration::from_mins(1)))
        .await
        .unwrap();
    let given = office
        .enroll(enrollment(token.secret, csr(&wishes)))
        .await
        .unwrap();
    let der = authority::first_certificate(&given.certificate_pem).unwrap();
    let identity = Identity::of_certificate(&der).unwrap();
    assert_eq!(
        (identity.role, &*identity.name, &*identity.serial),
        (Role::Viewer, "someone", &*given.serial)
    );
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(!parsed.is_ca());
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1);
}

#[tokio::test]
async fn the_store_does_not_hold_the_token() {
    let folder = TempDir::new().unwrap();
    let office = office(&folder).await;
    let (token, _) = office
        .create_token(viewer(Duration::from_mins(1)))
        .await
        .unwrap();
    assert_eq!(token.ca_fingerprint, office.authority().fingerprint());
    for entry in fs::read_dir(folder.path().join(FOLDER)).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let is_there = bytes.windows(32).any(|window| window == token.secret);
        assert!(!is_there, "{}", path.display());
    }
}

#[tokio::test]
async fn tokens_have_an_end() {
    let folder = TempDir::new().unwrap();
    let office = office(&folder).await;
    for valid in [Duration::ZERO, Duration::from_hours(744)] {
        let refusal = office.create_token(viewer(valid)).await.unwrap_err();
        assert!(matches!(refusal, IdentityError::TokenTime), "{refusal}");
    }
}

#[tokio::test]
async fn the_server_certificate_is_made_anew_in_its_last_quarter() {
    let folder = TempDir::new().unwrap();
    let office = office(&folder).await;
    let now = now_unix_s();
    let read = || fs::read_to_string(office.server_file()).unwrap();
    let first = read();
    assert!(!office.renew_server_certificate(now + 66 * 86_400).unwrap());
    assert_eq!(read(), first);
    assert!(office.renew_server_certificate(now + 68 * 86_400).unwrap());
    assert_ne!(read(), first);
    assert_eq!(mode(&office.server_file()), 0o600);
}

#[test]
fn what_names_nobody_is_no_host() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::create(&folder.path().join("ca"), 1).unwrap();
    for good in [
        "localhost",
        "a-b.example",
        "*.example.org",
        "::1",
        "10.0.0.1",
    ] {
        authority
            .issue_server(&[good.to_owned()], Validity::days(1))
            .unwrap();
    }
    for bad in ["", "a b", "-a", "a..b", "https://a", "é"] {
        let refusal = authority
            .issue_server(&[bad.to_owned()], Validity::days(1))
            .unwrap_err();
        assert!(matches!(refusal, IdentityError::HostName(_)), "{refusal}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_certificate_or_refused(bytes: Vec<u8>) {
        let _ = Identity::of_certificate(&bytes);
        let _ = CertificateRequest::parse(&bytes);
    }

    #[test]
    fn a_request_that_was_changed_after_it_was_signed_is_refused(at in 0_usize..200, bit in 0_u8..8) {
        let mut bytes = csr(&CertificateParams::default());
        // The signed part: a sequence of 128 to 255 bytes after the outer one's head.
        prop_assert_eq!(&bytes[3..5], &[0x30, 0x81]);
        let n = usize::from(bytes[5]);
        bytes[6 + at % n] ^= 1 << bit;
        prop_assert!(CertificateRequest::parse(&bytes).is_err());
    }
}
