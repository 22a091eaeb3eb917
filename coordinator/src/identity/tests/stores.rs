//! What both stores of identities do, and what only a shared one does.

use futures::future::join_all;

use super::*;
use crate::testing::{Bed, on_both};

async fn office_on(bed: &Bed, folder: &TempDir) -> Office {
    let folder = folder.path().join(FOLDER);
    Office::create(&folder, &policy(), bed.location().shared())
        .await
        .unwrap()
}

async fn secrets(office: &Office, n: usize) -> Vec<[u8; 32]> {
    let mut secrets = Vec::new();
    for _ in 0..n {
        let token = office.create_token(viewer(Duration::from_mins(1))).await;
        secrets.push(token.unwrap().0.secret);
    }
    secrets
}

async fn enroll(office: &Office, secret: [u8; 32]) -> Result<StoredIdentity, IdentityError> {
    let csr = csr(&CertificateParams::default());
    office.enroll(enrollment(secret, csr)).await
}

on_both! {
    async fn two_with_one_name_are_not_let_in_until_the_first_is_revoked(bed: &Bed) {
        let folder = TempDir::new().unwrap();
        let office = office_on(bed, &folder).await;
        let secrets = secrets(&office, 2).await;
        let first = enroll(&office, secrets[0]).await.unwrap();
        let refusal = enroll(&office, secrets[1]).await.unwrap_err();
        assert!(matches!(refusal, IdentityError::NameTaken(_)), "{refusal}");
        let revoked = office.revoke(&first.serial, "lost").await.unwrap();
        assert_eq!(revoked, std::slice::from_ref(&first.serial));
        let locked_out = office.store().revoked(now_unix_s()).await.unwrap();
        assert_eq!(locked_out, revoked);
        // Refused before, it has not used the token up.
        let second = enroll(&office, secrets[1]).await.unwrap();
        let refusal = office.revoke(&first.serial, "again").await.unwrap_err();
        assert!(matches!(refusal, IdentityError::Nobody(_)), "{refusal}");
        let refusal = office
            .renew(&first.serial, &csr(&CertificateParams::default()))
            .await
            .unwrap_err();
        assert!(matches!(refusal, IdentityError::Nobody(_)), "{refusal}");
        let kept = office.store().identity(&second.serial).await.unwrap();
        assert_eq!(kept.as_ref(), Some(&second));
        let all = office.store().identities().await.unwrap();
        let serials: Vec<&str> = all.iter().map(|it| &*it.serial).collect();
        assert_eq!(serials, [&*first.serial, &*second.serial]);
        assert!(all[0].revoked_unix_s.is_some());
    }

    async fn of_many_who_redeem_one_token_one_is_let_in(bed: &Bed) {
        let folder = TempDir::new().unwrap();
        let office = office_on(bed, &folder).await;
        let secret = secrets(&office, 1).await[0];
        let tries = (0..8).map(|_| enroll(&office, secret));
        let answers = join_all(tries).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        let refusals = answers.iter().filter_map(|answer| answer.as_ref().err());
        for refusal in refusals {
            assert!(matches!(refusal, IdentityError::TokenUnknown), "{refusal}");
        }
    }

    async fn an_agent_keeps_what_it_was_let_in_with(bed: &Bed) {
        use ed25519_dalek::Signer as _;
        let folder = TempDir::new().unwrap();
        let office = office_on(bed, &folder).await;
        let labels = BTreeMap::from([("rack".to_owned(), "é\"7".to_owned())]);
        let new = NewToken {
            role: Role::Agent,
            name: Some("a-7".into()),
            labels: labels.clone(),
            valid: Duration::from_mins(1),
        };
        let (token, _) = office.create_token(new).await.unwrap();
        let csr_der = csr(&CertificateParams::default());
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let proof = key.sign(&[tritmark_proto::identity::SIGNING_PROOF_CONTEXT, &csr_der].concat());
        let agent_id = uuid::Uuid::now_v7();
        let signing = (*key.verifying_key().as_bytes(), proof.to_bytes());
        let given = office
            .enroll(Enrollment {
                agent_id: Some(agent_id),
                signing: Some(signing),
                ..enrollment(token.secret, csr_der)
            })
            .await
            .unwrap();
        let kept = office.store().identity(&given.serial).await.unwrap().unwrap();
        assert_eq!(kept, given);
        assert_eq!((kept.agent_id, kept.signing_key), (Some(agent_id), Some(signing.0)));
        assert_eq!((&*kept.name, kept.labels), ("a-7", labels));
    }

    async fn an_expired_token_lets_nobody_in(bed: &Bed) {
        let folder = TempDir::new().unwrap();
        let office = office_on(bed, &folder).await;
        let secret = secrets(&office, 1).await[0];
        let hash = <sha2::Sha256 as sha2::Digest>::digest(secret).into();
        let nobody = |_: &StoredToken| -> Result<StoredIdentity, IdentityError> {
            panic!("nobody is let in")
        };
        let late = now_unix_s() + 61;
        let refusal = office.store().redeem(hash, late, &nobody).await.unwrap_err();
        assert!(matches!(refusal, IdentityError::TokenExpired), "{refusal}");
    }

    async fn the_audit_log_is_only_added_to(bed: &Bed) {
        let folder = TempDir::new().unwrap();
        let office = office_on(bed, &folder).await;
        office.audit_command("test", "first").await.unwrap();
        for tamper in ["UPDATE audit SET detail = 'other'", "DELETE FROM audit"] {
            match bed.location().shared() {
                None => {
                    let path = folder.path().join(FOLDER).join("identity.sqlite");
                    let url = format!("sqlite://{}", path.display());
                    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
                    sqlx::query(tamper).execute(&pool).await.unwrap_err();
                }
                Some(url) => {
                    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
                    let options = options.options([("search_path", "tritmark_identity")]);
                    let pool = sqlx::PgPool::connect_with(options).await.unwrap();
                    let refused = sqlx::query(tamper).execute(&pool).await.unwrap_err();
                    assert!(refused.to_string().contains("only added to"), "{refused}");
                }
            }
        }
        let call = office.store().audit_log(10).await.unwrap();
        assert_eq!(call.len(), 1);
        assert_eq!(call[0].1.detail, "first");
        let entry = AuditEntry {
            event: AuditEvent::Outcome { call: call[0].0 },
            serial: Some("ab".into()),
            address: Some("127.0.0.1:7".into()),
            what: "Submit".into(),
            detail: "zero \0 byte".into(),
            ..call[0].1.clone()
        };
        office.store().audit(&entry).await.unwrap();
        let denied = AuditEntry { event: AuditEvent::Denied, ..entry.clone() };
        office.store().audit(&denied).await.unwrap();
        let log = office.store().audit_log(2).await.unwrap();
        let (events, details): (Vec<_>, Vec<_>) = log
            .iter()
            .map(|(_, entry)| (entry.event, entry.detail.replace('\0', "")))
            .unzip();
        assert_eq!(events, [entry.event, AuditEvent::Denied]);
        assert_eq!(details, ["zero  byte", "zero  byte"]);
    }
}

#[tokio::test]
async fn coordinators_of_one_data_base_know_each_others_identities() {
    let Some(bed) = Bed::postgres().await else {
        return;
    };
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let first = office_on(&bed, &one).await;
    // The second has a copy of the authority.
    let copy = two.path().join(FOLDER);
    fs::create_dir(&copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(one.path().join(FOLDER)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let location = bed.location();
    let (second, third) = tokio::join!(
        Office::open(&copy, location.shared()),
        Office::open(&copy, location.shared()),
    );
    let (second, third) = (second.unwrap(), third.unwrap());
    let secrets = secrets(&first, 2).await;
    let (a, b) = tokio::join!(enroll(&second, secrets[0]), enroll(&third, secrets[1]));
    // One name: whoever came second was refused.
    let (given, refused) = match (a, b) {
        (Ok(given), Err(refused)) | (Err(refused), Ok(given)) => (given, refused),
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused, IdentityError::NameTaken(_)), "{refused}");
    second.revoke(&given.serial, "lost").await.unwrap();
    for office in [&first, &third] {
        let revoked = office.store().revoked(now_unix_s()).await.unwrap();
        assert_eq!(revoked, std::slice::from_ref(&given.serial));
    }
    assert!(!one.path().join(FOLDER).join("identity.sqlite").exists());
}

#[tokio::test]
async fn who_was_let_in_before_there_was_a_data_base_is_known_in_it() {
    let Some(bed) = Bed::postgres().await else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let alone = office(&folder).await;
    let secrets = secrets(&alone, 2).await;
    let gone = enroll(&alone, secrets[0]).await.unwrap();
    alone.revoke(&gone.serial, "lost").await.unwrap();
    let given = enroll(&alone, secrets[1]).await.unwrap();
    let before = alone.store().identities().await.unwrap();
    drop(alone);
    for _ in 0..2 {
        let identity = folder.path().join(FOLDER);
        let office = Office::open(&identity, bed.location().shared()).await;
        let office = office.unwrap();
        assert_eq!(office.store().identities().await.unwrap(), before);
        let revoked = office.store().revoked(now_unix_s()).await.unwrap();
        assert_eq!(revoked, std::slice::from_ref(&gone.serial));
        let renewed = csr(&CertificateParams::default());
        assert_eq!(
            office.store().identity(&given.serial).await.unwrap(),
            Some(given.clone())
        );
        assert!(office.renew(&gone.serial, &renewed).await.is_err());
    }
}
