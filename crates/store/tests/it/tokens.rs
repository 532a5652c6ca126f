//! Tokens and workspaces.

use super::*;

fn token(n: u64, secret: u8) -> NewToken {
    NewToken {
        id: TokenId::new(at(0), n),
        name: name("ann"),
        roles: Roles::of(&[Role::Approver]),
        project: project(),
        secret_sha256: [secret; 32],
    }
}

pub(crate) async fn a_token_counts_from_its_commit_to_its_revocation(place: Place) {
    let store = place.open();
    assert_eq!(store.principal(&[1; 32]), None);
    let made = store.create_token(token(1, 1), cause(1)).await.unwrap();
    store.create_token(token(2, 2), cause(1)).await.unwrap();
    let found = store.principal(&[1; 32]).unwrap();
    assert_eq!((found.token, found.name, found.project), (made.id.clone(), name("ann"), project()));
    let mut near = [1; 32];
    if let Some(last) = near.last_mut() {
        *last = 0;
    }
    assert_eq!(store.principal(&near), None);

    let elsewhere = store.revoke_token(&name("other"), &made.id, cause(2)).await;
    assert!(matches!(elsewhere, Err(TokenError::NotFound)), "another project's admin revoked a token: {elsewhere:?}");
    let revoked = store.revoke_token(&project(), &made.id, cause(3)).await.unwrap();
    assert_eq!(revoked.revoked_at, Some(at(3)));
    assert_eq!(store.principal(&[1; 32]), None, "a revoked token still counts");
    assert!(store.principal(&[2; 32]).is_some());
    let head = store.head();
    assert_eq!(store.revoke_token(&project(), &made.id, cause(4)).await.unwrap(), revoked);
    assert_eq!(store.head(), head, "revoking twice is logged twice");
    let unknown = store.revoke_token(&project(), &TokenId::new(at(0), 9), cause(4)).await;
    assert!(matches!(unknown, Err(TokenError::NotFound)));

    let all = sound(&store).await;
    let kinds: Vec<_> = all.entries.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(kinds, ["token.created", "token.created", "token.revoked"]);
    assert!(store.tokens(&name("other")).await.unwrap().is_empty());
    drop(store);
    let store = place.open();
    assert_eq!((store.principal(&[1; 32]), store.principal(&[2; 32]).is_some()), (None, true));
    assert_eq!(sound(&store).await, all);
}

pub(crate) async fn a_token_is_replaced_whole_or_not_at_all(place: Place) {
    let store = place.open();
    let old = store.create_token(token(1, 1), cause(1)).await.unwrap();
    store.create_token(token(2, 2), cause(2)).await.unwrap();
    let head = store.head();
    // The secret of another token: nothing of the replacement may stay.
    let refused = store.replace_token(&project(), &old.id, TokenId::new(at(1), 3), [2; 32], cause(3)).await;
    assert!(matches!(refused, Err(TokenError::Exists)), "{refused:?}");
    let elsewhere = store.replace_token(&name("other"), &old.id, TokenId::new(at(1), 3), [3; 32], cause(3)).await;
    assert!(matches!(elsewhere, Err(TokenError::NotFound)), "{elsewhere:?}");
    assert!(store.principal(&[1; 32]).is_some() && store.head() == head);
    let new = store.replace_token(&project(), &old.id, TokenId::new(at(1), 3), [3; 32], cause(4)).await.unwrap();
    assert_eq!((&new.name, &new.roles), (&old.name, &old.roles));
    assert!(store.principal(&[1; 32]).is_none() && store.principal(&[3; 32]).is_some());
    assert_eq!(store.head(), head + 2);
    let again = store.replace_token(&project(), &old.id, TokenId::new(at(2), 4), [4; 32], cause(5)).await;
    assert!(matches!(again, Err(TokenError::NotFound)), "{again:?}");
    sound(&store).await;
}

pub(crate) async fn a_configured_token_follows_its_configuration_and_stays_revoked(place: Place) {
    let store = place.open();
    store.upsert_configured_token(token(1, 1), cause(1)).await.unwrap();
    store.upsert_configured_token(token(1, 1), cause(2)).await.unwrap();
    assert_eq!(store.head(), 1, "nothing changed and something was logged");
    let roles = Roles::of(&[Role::Auditor]);
    store.upsert_configured_token(NewToken { roles: roles.clone(), ..token(1, 1) }, cause(3)).await.unwrap();
    assert_eq!(store.principal(&[1; 32]).unwrap().roles, roles);
    store.upsert_configured_token(token(1, 2), cause(4)).await.unwrap();
    assert_eq!((store.principal(&[1; 32]), store.principal(&[2; 32]).is_some()), (None, true), "the old secret counts");
    store.revoke_token(&project(), &token(1, 2).id, cause(5)).await.unwrap();
    let still = store.upsert_configured_token(token(1, 2), cause(6)).await.unwrap();
    assert_eq!((still.revoked_at, store.principal(&[2; 32])), (Some(at(5)), None), "a restart undid a revocation");
    store.upsert_configured_token(token(1, 3), cause(7)).await.unwrap();
    assert!(store.principal(&[3; 32]).is_some());
    assert_eq!(sound(&store).await.tokens.len(), 1);
}

pub(crate) async fn a_secret_has_one_holder(place: Place) {
    let store = place.open();
    store.create_token(token(1, 1), cause(1)).await.unwrap();
    store.revoke_token(&project(), &token(1, 1).id, cause(2)).await.unwrap();
    let before = sound(&store).await;
    for taken in [
        store.create_token(token(1, 2), cause(3)).await,
        store.create_token(token(2, 1), cause(3)).await,
        store.upsert_configured_token(token(2, 1), cause(3)).await,
    ] {
        assert!(matches!(taken, Err(TokenError::Exists)), "{taken:?}");
    }
    assert_eq!(store.principal(&[1; 32]), None, "a revoked secret came back under another name");
    assert_eq!(sound(&store).await, before);
}

pub(crate) async fn workspaces_are_added_and_removed_once(place: Place) {
    let store = place.open();
    let other = name("other");
    for path in ["/b", "/a", "/b"] {
        store.add_workspace(&project(), path.into(), cause(1)).await.unwrap();
    }
    store.add_workspace(&other, "/c".into(), cause(1)).await.unwrap();
    assert_eq!(store.workspaces(&project()), ["/b", "/a"]);
    assert!(!store.remove_workspace(&other, "/a".into(), cause(2)).await.unwrap());
    assert!(store.remove_workspace(&project(), "/b".into(), cause(2)).await.unwrap());
    assert!(!store.remove_workspace(&project(), "/b".into(), cause(2)).await.unwrap());
    assert_eq!(store.head(), 4, "what changed nothing was logged");
    drop(store);
    let store = place.open();
    assert_eq!((store.workspaces(&project()), store.workspaces(&other)), (vec!["/a".into()], vec!["/c".into()]));
}
