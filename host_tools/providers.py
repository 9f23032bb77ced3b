"""What Microsoft 365, Gmail and Amazon SES say, and what to do about it.

PROVIDERS is how `edgepost smarthost --as` behaves; `explain` is what `edgepost doctor` makes of a reply. The texts are
the providers' own words, as short as a program needs them. Sources, as of 2026:

m365   "Email non-delivery report (NDR) and SMTP errors in Exchange Online", "Fix issues with printers, scanners, and
       LOB applications that send email using Microsoft 365", "Exchange Online limits" (learn.microsoft.com); Exchange
       Team Blog, "Changes coming to the SMTP Authenticated Submission client protocol" (three connections a mailbox)
gmail  "Gmail SMTP errors and codes", support.google.com/a/answer/3726730; "Gmail sending limits in Google Workspace",
       support.google.com/a/answer/166852; "Send emails from a different address or alias" (the sender is replaced)
ses    "Amazon SES SMTP issues", "Amazon SES email sending errors", "Errors related to the sending quotas",
       "Service quotas in Amazon SES" (docs.aws.amazon.com/ses/latest/dg)
"""

import re


class Provider:
    """One row of PROVIDERS.

    greeting, name   the 220 line without its code; what the EHLO reply begins with
    mechanisms       of AUTH, without and with a token server
    size             octets of a mail
    per_minute, per_day, per_session, rcpts, connections   limits, None: not documented
    sender           what becomes of a foreign sender: "refuse" after the mail, or "replace"
    replies          point or limit -> reply; a `%s` in it is the sender
    named            name of a fault -> (point, reply)
    hosts            how its real names end
    """

    def __init__(self, **rows):
        self.per_minute = self.per_day = self.per_session = self.rcpts = self.connections = None
        self.__dict__.update(rows)


PROVIDERS = {
    "m365": Provider(
        title="Microsoft 365",
        hosts=("office365.com", "outlook.com", "office365.us"),
        greeting="localhost.outlook.office365.com Microsoft ESMTP MAIL Service ready",
        name="localhost.outlook.office365.com Hello",
        mechanisms=("LOGIN",),
        size=157286400,
        per_minute=30,
        per_day=10_000,
        rcpts=500,
        connections=3,
        sender="refuse",
        replies={
            "need-tls": "530 5.7.57 Client not authenticated to send mail.",
            "need-auth": "530 5.7.57 Client not authenticated to send mail.",
            "auth": "535 5.7.3 Authentication unsuccessful",
            "sender": "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
            # Microsoft says that it throttles, not with which reply; this one is Exchange Server's.
            "per_minute": "421 4.4.2 Message submission rate for this client has exceeded the configured limit",
            "per_day": "550 5.1.90 Your message can't be sent because you've reached your daily limit for message"
            " recipients",
            "per_session": "421 4.4.2 Message submission rate for this client has exceeded the configured limit",
            "connections": "432 4.3.2 Concurrent connections limit exceeded",
            "rcpts": "452 4.5.3 Too many recipients",
            "size": "552 5.3.4 Message size exceeds fixed maximum message size",
        },
        named={
            "auth-disabled": ("auth", "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled"
            " for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information."),
            "policy": ("auth", "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security"
            " defaults policy. Contact your administrator."),
            "daily-limit": ("end", "550 5.1.90 Your message can't be sent because you've reached your daily limit for"
            " message recipients"),
            "tenant-limit": ("end", "550 5.7.233 Your message can't be sent because your tenant exceeded its daily"
            " limit for sending email to external recipients (tenant external recipient rate limit)"),
            "threads": ("end", "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"),
            "busy": ("mail", "451 4.7.500 Server busy. Please try again later"),
            "blocked": ("end", "550 5.1.8 Access denied, bad outbound sender"),
        },
    ),
    "gmail": Provider(
        title="Gmail",
        hosts=("gmail.com", "googlemail.com", "google.com"),
        greeting="smtp.gmail.com ESMTP - gsmtp",
        name="smtp.gmail.com at your service",
        mechanisms=("LOGIN", "PLAIN"),
        size=35882577,
        per_day=500,
        rcpts=100,
        sender="replace",
        replies={
            "need-tls": "530 5.7.0 Must issue a STARTTLS command first. - gsmtp",
            "need-auth": "530 5.7.0 Authentication Required. - gsmtp",
            "auth": "535 5.7.8 Username and Password not accepted. For more information, go to"
            " https://support.google.com/mail/?p=BadCredentials - gsmtp",
            "per_minute": "421 4.7.0 Try again later, closing connection. - gsmtp",
            "per_day": "550 5.4.5 Daily user sending limit exceeded. For more information on Gmail sending limits go to"
            " https://support.google.com/a/answer/166852 - gsmtp",
            "per_session": "421 4.7.0 Try again later, closing connection. - gsmtp",
            "connections": "421 4.7.0 Try again later, closing connection. - gsmtp",
            "rcpts": "452 4.5.3 Your message has too many recipients. - gsmtp",
            "size": "552 5.3.4 Your message exceeded Google's message size limits. - gsmtp",
        },
        named={
            "app-password": ("auth", "534 5.7.9 Application-specific password required. For more information, go to"
            " https://support.google.com/mail/?p=InvalidSecondFactor - gsmtp"),
            "browser": ("auth", "534 5.7.14 Please log in through your web browser and then try again. - gsmtp"),
            "logins": ("auth", "454 4.7.0 Too many login attempts, please try again later. - gsmtp"),
            "daily-limit": ("end", "550 5.4.5 Daily user sending limit exceeded. - gsmtp"),
            "relay-denied": ("rcpt", "550 5.7.1 Invalid credentials for relay. - gsmtp"),
            "recipient-busy": ("rcpt", "450 4.2.1 The user you are trying to contact is receiving mail too quickly."
            " - gsmtp"),
            "busy": ("mail", "421 4.7.0 Try again later, closing connection. - gsmtp"),
        },
    ),
    "ses": Provider(
        title="Amazon SES",
        hosts=("amazonaws.com",),
        greeting="email-smtp.amazonaws.com ESMTP SimpleEmailService-localhost",
        name="email-smtp.amazonaws.com",
        mechanisms=("LOGIN", "PLAIN"),
        size=41943040,
        per_minute=60,  # the sandbox: one a second
        per_day=200,  # the sandbox
        rcpts=50,
        sender="refuse",
        replies={
            "need-tls": "530 Must issue a STARTTLS command first",
            "need-auth": "530 Authentication required",
            "auth": "535 Authentication Credentials Invalid",
            "sender": "554 Message rejected: Email address is not verified. The following identities failed the check"
            " in region EU-WEST-1: %s",
            "per_minute": "454 Throttling failure: Maximum sending rate exceeded.",
            "per_day": "454 Throttling failure: Daily message quota exceeded.",
            "per_session": "421 Too many messages in one connection",  # undocumented
            "connections": "421 Too many concurrent SMTP connections",
            "rcpts": "452 Too many recipients",
            "size": "552 Message is too long.",
        },
        named={
            "auth-later": ("auth", "454 Temporary authentication failure"),
            "denied": ("end", "554 Access denied: User arn:aws:iam::111122223333:user/mail is not authorized to perform"
            " ses:SendRawEmail on resource arn:aws:ses:eu-west-1:111122223333:identity/example.com"),
            "daily-limit": ("end", "454 Throttling failure: Daily message quota exceeded."),
            "rate": ("end", "454 Throttling failure: Maximum sending rate exceeded."),
            "sandbox": ("end", "554 Message rejected: Email address is not verified. The following identities failed"
            " the check in region EU-WEST-1: office@example.net"),
        },
    ),
}  # fmt: skip


# (provider or "", pattern in "code enhanced text", what it means, what to do), the first that fits counts.
_EXPLAINED = (
    # Microsoft 365
    ("m365", r"5\.7\.139.*disabled for the (tenant|mailbox)",
     "SMTP AUTH is switched off for the tenant or this mailbox",
     "have an administrator run Set-CASMailbox -Identity MAILBOX -SmtpClientAuthenticationDisabled $false; passwords"
     ' are off by default from the end of 2026, auth = "oauth2" stays'),
    ("m365", r"5\.7\.139.*(security defaults|locked|policy)",
     "the tenant's security defaults or a Conditional Access policy forbid a sign-in with a password",
     'use auth = "oauth2" (docs/providers.md), or have an administrator except this mailbox'),
    ("m365", r"5\.7\.139", "Microsoft refuses this kind of sign-in, often because passwords are switched off",
     'use auth = "oauth2" (docs/providers.md), or have SMTP AUTH allowed for the mailbox'),
    ("m365", r"^535 .*5\.7\.3|^535 ", "Microsoft does not take this user name with this password or token",
     "check username (the mailbox's full address) and password; with oauth2: that the mailbox itself signed in"),
    ("m365", r"5\.7\.57", "nobody has signed in", "set username and password, or auth = \"oauth2\""),
    ("m365", r"5\.7\.60|5\.2\.252|SendAsDenied",
     "the mailbox that signed in may not send as this sender",
     "set smarthost.sender to the mailbox's own address, or have an administrator grant it Send As for the other"),
    ("m365", r"5\.1\.90|SubmissionQuotaExceeded", "the mailbox has reached its 10,000 recipients of a day",
     "wait: the count is of the last 24 hours; set per_day, and look for a device that sends too much"),
    ("m365", r"5\.7\.23[23]", "the tenant has reached its recipients outside of it for a day",
     "wait: the count is of the last 24 hours; the Exchange admin center shows who sends that much"),
    ("m365", r"^432|thread limit|concurrent connections", "more than three connections use this mailbox at a time",
     "nothing, if it is rare: the board waits and tries again; else give each board a mailbox of its own"),
    ("m365", r"submission rate|4\.4\.2", "more than 30 mails in a minute came from this mailbox",
     "set per_minute = 30, less if others send as this mailbox too"),
    ("m365", r"4\.7\.5\d\d", "Microsoft is busy, or distrusts this network address for now",
     "nothing: the board tries again in a quarter of an hour; if it lasts, your address may be on a block list"),
    ("m365", r"5\.1\.8", "Microsoft has blocked this mailbox from sending, because it looked like spam",
     "have an administrator look at Restricted entities in the Defender portal, and change the password"),
    # Gmail
    ("gmail", r"5\.7\.9|application-specific", "the account has 2-Step Verification: its own password is not taken",
     "make an app password at https://myaccount.google.com/apppasswords and set password to it, without its spaces"),
    ("gmail", r"5\.7\.14|web browser", "Google wants to see a person sign in",
     "sign in once in a browser on this network, then try again; or use auth = \"oauth2\""),
    ("gmail", r"^454 .*login attempts", "too many sign-ins in a short time",
     "wait; then check the password, which may be wrong and be tried again and again"),
    ("gmail", r"^535 ", "Google does not take this user name with this password or token",
     "username is the full address; password is an app password (16 letters), not the account's own"),
    ("gmail", r"5\.4\.5", "the account has sent its mails of a day: 500, 2,000 with Workspace",
     "wait until tomorrow; set per_day = 500"),
    ("gmail", r"credentials for relay|5\.7\.1 .*relay",
     "smtp-relay.gmail.com does not know this network address or sender",
     "add your public address under SMTP relay service in the Google Admin console, or use smtp.gmail.com"),
    ("gmail", r"^450 4\.2\.1", "this recipient gets too much mail at the moment",
     "nothing: the board tries again later"),
    ("gmail", r"^421|4\.7\.28", "Google wants less mail, or fewer connections, from this address",
     "nothing: the board waits a quarter of an hour; if it lasts, set per_minute and per_session"),
    # Amazon SES
    ("ses", r"not verified",
     "SES does not know one of these addresses: the sender is not verified, or the account is in the sandbox, where the"
     " recipient has to be verified, too",
     "verify the sender's domain in the SES console of this region and set smarthost.sender to an address of it; to"
     " leave the sandbox, request production access"),
    ("ses", r"^535 ", "SES does not know these SMTP credentials",
     "make SMTP credentials in the SES console, of this region: they are not your AWS access key and its secret"),
    ("ses", r"^454 temporary authentication", "SES could not check the credentials just now",
     "nothing: the board tries again"),
    ("ses", r"sending rate", "more mails in a second than the account may send",
     "set per_minute to 60 times the rate that the SES console shows"),
    ("ses", r"daily message quota", "the account has sent its mails of 24 hours: 200 in the sandbox",
     "wait; set per_day; request production access or a higher quota"),
    ("ses", r"access denied", "the IAM user of these credentials may not send, or not as this sender",
     "give the user a policy that allows ses:SendRawEmail for this identity"),
    # anybody
    ("", r"must issue a starttls", "it takes mail over TLS only", 'set security = "starttls"'),
    ("", r"^530 ", "it takes mail after AUTH only", "set username and password"),
    ("", r"5\.3\.4|^552 .*(size|too long|too much mail)", "the mail is bigger than it takes",
     "set queue.max_message to its limit, or send less"),
    ("", r"too many messages in (one|a|this) connection", "it takes fewer mails in a session than came",
     "nothing: the rest goes in another session; smarthost.per_session saves the refusal"),
    ("", r"too many (concurrent )?(smtp )?connections", "more connections are open to it than it takes at a time",
     "nothing, if it is rare: the board waits and tries again; else see who else signs in as this user"),
    ("", r"too many recipients", "there are more recipients than it takes for one mail",
     "nothing: the rest goes in another mail"),
    ("", r"sender address rejected: not owned|5\.7\.1 .*not owned|5\.7\.60",
     "the user who signed in may not send as this sender", "set smarthost.sender to an address of that user"),
    ("", r"relay(ing)? (access )?denied|not permitted to relay|relay access",
     "it does not relay for this board",
     "set username and password, or have its administrator allow the board's address"),
    ("", r"^4\d\d .*4\.7\.(0|1) .*grey|greylist", "it puts off mail from those whom it does not know yet",
     "nothing: the board tries again"),
    ("", r"^4\d\d .*(too many|rate|throttl|try again later|busy)", "it wants less mail, or has too much to do",
     "nothing: the board waits and tries again; if it lasts, set per_minute"),
    ("", r"^535 |^534 |^538 ", "it does not take this user name with this password",
     "check username and password; some servers want the full address as the user name"),
    ("", r"^4", "it says not now", "nothing: the board tries again; if it lasts, ask whoever runs the server"),
)  # fmt: skip


def known(host, greeting=""):
    """The provider behind a host name or a greeting: a key of PROVIDERS, or ""."""
    host, greeting = host.lower(), greeting.lower()
    for key, row in PROVIDERS.items():
        if any(host == h or host.endswith("." + h) for h in row.hosts):
            return key
    for word, key in (("microsoft esmtp", "m365"), ("gsmtp", "gmail"), ("simpleemailservice", "ses")):
        if word in greeting:
            return key
    return ""


def explain(reply, provider=""):
    """(what a refusal means, what to do) for a reply as text, "550 5.4.5 ..."; ("", "") when it says nothing more."""
    for key, pattern, meaning, remedy in _EXPLAINED:
        if key in ("", provider) and re.search(pattern, reply, re.I):
            return meaning, remedy
    return "", ""
