#!/bin/sh
# A nightly look at drift, for cron: prints the report if there is drift, and nothing if all is well. cron mails
# what a job prints to MAILTO:
#
#     MAILTO=analysts@example.org
#     15 4 * * *  cd /srv/kickserve && SERVICE=http://127.0.0.1:7860 ./drift_job.sh
#
# It needs `pip install 'kickserve[drift]'` and, where the service asks for a key, API_KEY in the environment. The
# report as HTML is in data/drift_reports. The service itself can do the same: KICKSERVE_DRIFT_EVERY=24h.
set -u

report=$(kickserve evaluate --url "$SERVICE" --since 24h --fail-on-drift 2>&1)
code=$?
case $code in
    0 | 5) exit 0 ;; # no drift, or fewer than 50 kicks since yesterday
    4) echo "$report" ;;
    *) echo "kickserve evaluate ended with $code:" "$report" ;; # the service was away, say
esac
exit "$code"
