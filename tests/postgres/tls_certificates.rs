//! Certificates of servers and clients: whose count, for whom, and for how long.

use super::tls::Scene;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Whom a server's certificate must be of, and for.
#[test]
fn certificates_are_verified() {
    let mut scene = Scene::new();
    let made = &scene.certificates;
    made.authority("stranger");
    made.chain(&["stranger.crt", "root.crt"], "both.crt");
    fs::write(made.path("nothing.crt"), "nothing").unwrap();
    let root = scene.file("sslrootcert", "root.crt");
    let full = |scene: &Scene, host: &str, root: &str| {
        scene.options(host, "either", &format!("sslmode=verify-full {root}"))
    };
    for host in ["db.example.org", "DB.Example.org", "a.wild.example.org", "127.0.0.1"] {
        assert_eq!(scene.connect(&full(&scene, host, &root)), Ok(true), "{host}");
    }
    for host in ["example.org", "a.b.wild.example.org", "somebody", "127.0.0.2", "localhost"] {
        scene.refuses(&full(&scene, host, &root), "its certificate is for db.example.org");
        let options = scene.options(host, "either", &format!("sslmode=verify-ca {root}"));
        assert_eq!(scene.connect(&options), Ok(true), "{host}");
    }
    let stranger = scene.file("sslrootcert", "stranger.crt");
    for mode in ["require", "verify-ca", "verify-full"] {
        let options = scene.options("db.example.org", "either", &format!("sslmode={mode} {stranger}"));
        scene.refuses(&options, "is not signed by anybody whose certificate is in");
    }
    assert_eq!(
        scene.connect(&full(&scene, "db.example.org", &scene.file("sslrootcert", "both.crt"))),
        Ok(true)
    );
    for (more, why) in [
        ("sslmode=verify-full".to_owned(), "sslmode=verify-full needs the certificates"),
        (format!("sslmode=verify-ca {}", scene.file("sslrootcert", "missing.crt")), "cannot read"),
        (format!("sslmode=require {}", scene.file("sslrootcert", "nothing.crt")), "holds no certificate"),
        ("sslmode=require sslrootcert=system".to_owned(), "would accept any certificate"),
        (format!("sslmode=require {}", scene.file("sslcrl", "root.crt")), "all count"),
    ] {
        scene.refuses(&scene.options("db.example.org", "either", &more), why);
    }

    // By an authority in between, which the server shows along.
    let made = &scene.certificates;
    made.signed("middle", "middle", "root", Some("authority"), "5");
    made.signed("deep", "db.example.org", "middle", Some("server"), "5");
    made.chain(&["deep.crt", "middle.crt"], "deep-chain.crt");
    scene.shows("deep-chain.crt", "deep.key");
    assert_eq!(scene.connect(&full(&scene, "db.example.org", &root)), Ok(true));
    scene.shows("deep.crt", "deep.key");
    scene.refuses(&full(&scene, "db.example.org", &root), "is not signed by anybody");
    let middle = scene.file("sslrootcert", "middle.crt");
    assert_eq!(scene.connect(&full(&scene, "db.example.org", &middle)), Ok(true));

    // As the recipe in the server's manual makes them: of version 1, and for a common name.
    scene.certificates.signed("first", "db.example.org", "root", None, "5");
    scene.certificates.signed("forged", "db.example.org", "stranger", None, "5");
    scene.shows("first.crt", "first.key");
    assert_eq!(scene.connect(&full(&scene, "db.example.org", &root)), Ok(true));
    assert_eq!(
        scene.connect(&full(&scene, "db.example.org", &scene.file("sslrootcert", "both.crt"))),
        Ok(true)
    );
    scene.refuses(&full(&scene, "other.example.org", &root), "its certificate is for db.example.org");
    scene.refuses(&full(&scene, "db.example.org", &stranger), "of version 1 and is not signed by one in");
    assert_eq!(
        scene.connect(&scene.options("db.example.org", "either", "sslmode=require channel_binding=require")),
        Ok(true)
    );
    scene.certificates.signed_by_itself("root-again", "root", "authority", "10");
    let namesake = scene.file("sslrootcert", "root-again.crt");
    scene.refuses(&full(&scene, "db.example.org", &namesake), "of version 1 and is not signed by one in");
    scene.shows("forged.crt", "forged.key");
    scene.refuses(&full(&scene, "db.example.org", &root), "of version 1 and is not signed by one in");

    // Signed by itself, and named as it is.
    scene.certificates.signed_by_itself("alone", "db.example.org", "authority", "5");
    scene.shows("alone.crt", "alone.key");
    let alone = scene.file("sslrootcert", "alone.crt");
    assert_eq!(scene.connect(&full(&scene, "db.example.org", &alone)), Ok(true));
    scene.refuses(&full(&scene, "other.example.org", &alone), "its certificate is for db.example.org");
    scene.refuses(&full(&scene, "db.example.org", &root), "is not signed by anybody");
}

/// Certificates that have expired, are for something else, or were revoked.
#[test]
fn certificates_that_count_no_more_are_refused() {
    let mut scene = Scene::new();
    let made = &scene.certificates;
    made.expired("late", "db.example.org", "root", Some("server"));
    made.expired("late-first", "db.example.org", "root", None);
    made.signed("client", "db.example.org", "root", Some("client"), "5");
    made.revoke("none.crl", "root", &[]);
    made.revoke("some.crl", "root", &["server"]);
    made.authority("stranger");
    made.revoke("stranger.crl", "stranger", &[]);
    let root = scene.file("sslrootcert", "root.crt");
    let options = |scene: &Scene, more: &str| {
        scene.options("db.example.org", "either", &format!("sslmode=verify-full {root} {more}"))
    };
    assert_eq!(scene.connect(&options(&scene, &scene.file("sslcrl", "none.crl"))), Ok(true));
    scene.refuses(&options(&scene, &scene.file("sslcrl", "some.crl")), "was revoked");
    scene.refuses(&options(&scene, &scene.file("sslcrl", "stranger.crl")), "no list of whoever signed");
    scene.refuses(
        &options(&scene, &scene.file("sslcrl", "root.crt")),
        "holds no list of revoked certificates",
    );
    scene.shows("client.crt", "client.key");
    scene.refuses(&options(&scene, ""), "is not accepted");
    for late in ["late", "late-first"] {
        scene.shows(&format!("{late}.crt"), &format!("{late}.key"));
        scene.refuses(&options(&scene, ""), "has expired");
        let named = scene.file("sslrootcert", &format!("{late}.crt"));
        let named = scene.options("db.example.org", "either", &format!("sslmode=verify-ca {named}"));
        scene.refuses(&named, "has expired");
        assert_eq!(scene.connect(&scene.options("h", "either", "sslmode=require")), Ok(true), "any will do");
    }
}

/// Roles that log in with a certificate, and keys that are not as they should be.
#[test]
fn clients_show_certificates() {
    let scene = Scene::new();
    let made = &scene.certificates;
    made.signed("me", "certified", "root", Some("client"), "5");
    made.signed("first", "certified", "root", None, "5");
    made.signed("other", "nobody", "root", Some("client"), "5");
    made.authority("stranger");
    made.signed("forged", "certified", "stranger", Some("client"), "5");
    made.lock("me.key", "locked.key");
    made.copy("me.key", &made.path("open.key"));
    fs::set_permissions(made.path("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let root = scene.file("sslrootcert", "root.crt");
    let with = |certificate: &str, key: &str| {
        let (certificate, key) = (scene.file("sslcert", certificate), scene.file("sslkey", key));
        scene.options(
            "db.example.org",
            "certified",
            &format!("sslmode=verify-full {root} {certificate} {key}"),
        )
    };
    assert_eq!(scene.connect(&with("me.crt", "me.key")), Ok(true));
    assert_eq!(scene.connect(&with("first.crt", "first.key")), Ok(true), "of version 1");
    let none = scene.options("db.example.org", "certified", &format!("sslmode=verify-full {root}"));
    scene.refuses(&none, "requires a valid client certificate");
    scene.refuses(&with("other.crt", "other.key"), "certificate authentication failed");
    // The server ends the connection at once; what it says is an alert.
    let said = scene.connect(&with("forged.crt", "forged.key")).unwrap_err();
    assert!(said.to_lowercase().contains("alert") || said.contains("closed"), "{said}");
    scene.refuses(&with("me.crt", "other.key"), "does not go with the certificate");
    scene.refuses(&with("me.crt", "open.key"), "can be read by others");
    scene.refuses(&with("me.crt", "locked.key"), "has a passphrase");
    scene.refuses(&with("me.crt", "root.crt"), "root.crt");
    scene.refuses(&with("me.crt", "missing.key"), "cannot read");
    let alone = scene.options(
        "db.example.org",
        "certified",
        &format!("sslmode=require {}", scene.file("sslkey", "me.key")),
    );
    scene.refuses(&alone, "there is no certificate for it");
    // From the usual folder, where nothing else is named.
    let usual = made.path("usual");
    fs::create_dir(&usual).unwrap();
    let mut options = scene.options("db.example.org", "certified", "sslmode=verify-full");
    options.tls.folder = Some(usual.clone());
    scene.refuses(&options, "needs the certificates");
    made.copy("root.crt", &usual.join("root.crt"));
    scene.refuses(&options, "requires a valid client certificate");
    made.copy("me.crt", &usual.join("postgresql.crt"));
    scene.refuses(&options, "there is no key for the certificate");
    made.copy("me.key", &usual.join("postgresql.key"));
    fs::set_permissions(usual.join("postgresql.key"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(scene.connect(&options), Ok(true));
    // `require` verifies where there are certificates to verify with.
    made.copy("stranger.crt", &usual.join("root.crt"));
    options.tls.mode = Some("require".to_owned());
    scene.refuses(&options, "is not signed by anybody");
}
