//! Trying out a bucket: whether everything that is needed may be done, and what is wrong, in a sentence.

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::{Bucket, BucketOptions, Completed, Fault, Place};
use crate::error::{Error, Result};

/// What is written and read to try it.
const SAMPLE: &[u8] = b"deltaport tries whether it can write here";

/// Makes a small object in a bucket, in one piece and in parts, reads it, finds it in a list and removes it again.
///
/// Fails with [`Error::Unusable`], whose sentence says what is wrong and what to do about it.
pub async fn check_bucket(options: &BucketOptions) -> Result<()> {
    let bucket = Bucket::new(options.clone())?;
    let place = Place::draw()?;
    let tried = try_out(&bucket, &place).await;
    let removed = bucket.delete(&place).await.map_err(|fault| ("delete objects", fault));
    tried.and(removed).map_err(|(what, fault)| Error::Unusable(explain(options, what, &fault)))
}

async fn try_out(bucket: &Bucket, place: &Place) -> Result<(), (&'static str, Fault)> {
    let doing = |what: &'static str| move |fault| (what, fault);
    bucket.put(place, Bytes::from_static(SAMPLE)).await.map_err(doing("write objects"))?;
    let read = bucket.get_all(place, SAMPLE.len() as u64).await.map_err(doing("read objects"))?;
    if read != SAMPLE {
        return Err(("read objects", Fault::Wrong("it gives back other bytes than it was given".to_owned())));
    }
    let mut listed = bucket.list();
    while let Some(found) = listed.try_next().await.map_err(doing("list objects"))? {
        if found.place.as_ref() >= Some(place) {
            break;
        }
    }
    let parts = "write objects in parts";
    let multipart = bucket.create_multipart(place).await.map_err(doing(parts))?;
    let tag =
        bucket.put_part(place, &multipart, 0, Bytes::from_static(SAMPLE)).await.map_err(doing(parts))?;
    match bucket.complete(place, &multipart, vec![tag], SAMPLE.len() as u64).await.map_err(doing(parts))? {
        Completed::Surely | Completed::Perhaps => {}
    }
    // A second one, to see that parts can be given up.
    let multipart = bucket.create_multipart(place).await.map_err(doing(parts))?;
    bucket.abort(place, &multipart).await.map_err(doing("give up objects in parts"))
}

/// What a fault means for whoever wrote the settings.
fn explain(options: &BucketOptions, what: &str, fault: &Fault) -> String {
    let BucketOptions { bucket, endpoint, region, .. } = options;
    let at = endpoint.as_deref().unwrap_or("the service");
    let region = region.as_deref().unwrap_or("us-east-1");
    match fault {
        Fault::Refused { code, text } => match plainer(code, text) {
            "NoSuchBucket" => format!("there is no bucket {bucket} at {at}; make it, or correct its name"),
            "RequestTimeTooSkewed" | "RequestExpired" => format!(
                "the clock of this machine is not that of {at}, which takes no requests with such a difference; set it"
            ),
            "InvalidAccessKeyId" => format!("{at} does not know the access key; correct the credentials"),
            "SignatureDoesNotMatch" => {
                format!("{at} says that the signature is wrong; the secret of the access key is another")
            }
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                format!("the credentials for {at} have expired; get new ones")
            }
            "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
                match region_in(text) {
                    Some(right) => format!("the bucket {bucket} is in region {right} and not in {region}"),
                    None => format!("the bucket {bucket} is not in region {region}"),
                }
            }
            "AccessDenied" | "AllAccessDisabled" => format!(
                "the credentials may not {what} in the bucket {bucket}; it needs s3:GetObject, s3:PutObject, \
                 s3:DeleteObject, s3:AbortMultipartUpload and s3:ListBucket"
            ),
            code => format!("the bucket {bucket} cannot be used: trying to {what}, {at} said {code}: {text}"),
        },
        Fault::Away(text) if text.contains("redirect without LOCATION") => {
            format!("the bucket {bucket} is not in region {region}")
        }
        Fault::Away(text) => format!("{at} cannot be reached or does not answer: {text}"),
        other => format!("the bucket {bucket} cannot be used: trying to {what}: {other}"),
    }
}

/// The code of S3 for what is wrong. Garage has one for everybody whom it does not let in, and says why in words.
fn plainer<'a>(code: &'a str, text: &str) -> &'a str {
    match code {
        "AccessDenied" if text.contains("No such key") => "InvalidAccessKeyId",
        "AccessDenied" if text.contains("Invalid signature") => "SignatureDoesNotMatch",
        code => code,
    }
}

/// The region that a service names as the right one.
fn region_in(text: &str) -> Option<&str> {
    let tagged = text.split_once("<Region>").and_then(|(_, rest)| rest.split_once("</Region>"));
    tagged
        .or_else(|| text.split_once("expecting '").and_then(|(_, rest)| rest.split_once('\'')))
        .map(|(region, _)| region)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_a_sentence() {
        let options = BucketOptions { region: Some("eu-west-1".to_owned()), ..BucketOptions::new("images") };
        let said = |code: &str, text: &str| {
            let fault = Fault::Refused { code: code.to_owned(), text: text.to_owned() };
            explain(&options, "list objects", &fault)
        };
        for (code, text, expected) in [
            ("NoSuchBucket", "", "no bucket images"),
            ("RequestTimeTooSkewed", "", "clock"),
            ("InvalidAccessKeyId", "", "does not know the access key"),
            ("SignatureDoesNotMatch", "", "secret"),
            ("ExpiredToken", "", "expired"),
            ("AccessDenied", "Forbidden: No such key: GK00", "does not know the access key"),
            ("AccessDenied", "Forbidden: Invalid signature", "secret"),
            ("AccessDenied", "", "may not list objects in the bucket images"),
            ("PermanentRedirect", "<Region>us-east-2</Region>", "in region us-east-2 and not in eu-west-1"),
            ("AuthorizationHeaderMalformed", "wrong; expecting 'ap-south-1'", "in region ap-south-1"),
            ("PermanentRedirect", "", "not in region eu-west-1"),
            ("TeaPot", "short and stout", "TeaPot: short and stout"),
        ] {
            let sentence = said(code, text);
            assert!(sentence.contains(expected), "{code}: {sentence}");
        }
        let bare = Fault::Away("Received redirect without LOCATION, this normally".to_owned());
        assert!(explain(&options, "write", &bare).contains("not in region"));
    }
}
