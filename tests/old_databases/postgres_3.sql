-- A Postgres database as kickserve left it at schema 4, its months by LIKE: as the two others, and a deleted one.
CREATE TABLE kickserve_deleted (
    id uuid NOT NULL,
    at timestamp with time zone NOT NULL
);
CREATE TABLE kickserve_schema (
    version integer NOT NULL
);
CREATE TABLE predictions (
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    time_norm double precision NOT NULL,
    distance double precision NOT NULL,
    angle double precision NOT NULL,
    wind_speed double precision NOT NULL,
    precipitation_probability double precision NOT NULL,
    is_left_footed boolean NOT NULL,
    game_away boolean NOT NULL,
    is_endgame boolean NOT NULL,
    is_start boolean NOT NULL,
    is_left_side boolean NOT NULL,
    has_previous_attempts boolean NOT NULL,
    prediction double precision,
    confidence double precision,
    interval_low double precision,
    interval_high double precision,
    model text NOT NULL,
    revision text NOT NULL,
    latency_ms double precision NOT NULL,
    cpu_percent double precision NOT NULL,
    memory_mb double precision NOT NULL,
    status_code integer NOT NULL,
    error text,
    outcome boolean,
    outcome_at timestamp with time zone,
    shadow_model text,
    shadow_revision text,
    shadow_prediction double precision
)
PARTITION BY RANGE (id);
ALTER TABLE ONLY predictions ADD CONSTRAINT predictions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY kickserve_deleted ADD CONSTRAINT kickserve_deleted_pkey PRIMARY KEY (id);
CREATE INDEX predictions_judged ON predictions USING btree (id) INCLUDE (created_at, model, prediction, outcome, shadow_model, shadow_prediction) WHERE ((outcome IS NOT NULL) AND (prediction IS NOT NULL));
CREATE INDEX kickserve_deleted_at ON kickserve_deleted USING btree (at);
CREATE TABLE predictions_2023_12 (LIKE predictions);
ALTER TABLE ONLY predictions ATTACH PARTITION predictions_2023_12 FOR VALUES FROM ('018c22ac-d000-7000-8000-000000000000') TO ('018cc251-f400-7000-8000-000000000000');
CREATE TABLE predictions_2024_01 (LIKE predictions);
ALTER TABLE ONLY predictions ATTACH PARTITION predictions_2024_01 FOR VALUES FROM ('018cc251-f400-7000-8000-000000000000') TO ('018d61f7-1800-7000-8000-000000000000');
CREATE TABLE predictions_2024_02 (LIKE predictions);
ALTER TABLE ONLY predictions ATTACH PARTITION predictions_2024_02 FOR VALUES FROM ('018d61f7-1800-7000-8000-000000000000') TO ('018df74f-8400-7000-8000-000000000000');
CREATE TABLE predictions_2024_03 (LIKE predictions);
ALTER TABLE ONLY predictions ATTACH PARTITION predictions_2024_03 FOR VALUES FROM ('018df74f-8400-7000-8000-000000000000') TO ('018e96f4-a800-7000-8000-000000000000');
CREATE TABLE predictions_2025_06 (LIKE predictions);
ALTER TABLE ONLY predictions ATTACH PARTITION predictions_2025_06 FOR VALUES FROM ('019728c9-c000-7000-8000-000000000000') TO ('0197c348-8800-7000-8000-000000000000');
CREATE TABLE predictions_2025_12 (LIKE predictions);
ALTER TABLE ONLY predictions ATTACH PARTITION predictions_2025_12 FOR VALUES FROM ('019ad735-8400-7000-8000-000000000000') TO ('019b76da-a800-7000-8000-000000000000');
CREATE TABLE predictions_2026_01 (LIKE predictions);
ALTER TABLE ONLY predictions ATTACH PARTITION predictions_2026_01 FOR VALUES FROM ('019b76da-a800-7000-8000-000000000000') TO ('019c167f-cc00-7000-8000-000000000000');
INSERT INTO kickserve_deleted VALUES ('019b76da-a801-7000-8000-000000000000', '2026-12-01 03:18:14.921767+00');
INSERT INTO kickserve_schema VALUES (4);
INSERT INTO predictions_2023_12 VALUES ('018cc251-f3ff-7000-8000-000000000000', '2023-12-31 23:59:59.999+00', 0.30000000000000004, 20, 22.25, 12, 0.3333333333333333, true, false, true, false, true, false, 0.1, 0.9, 0.05, 0.15000000000000002, 'contract', 'r1', 0.042, 12.5, 81.25, 200, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO predictions_2024_01 VALUES ('018cc251-f400-7000-8000-000000000001', '2024-01-01 00:00:00+00', 0.30000000000000004, 21, 22.25, 12, 0.3333333333333333, true, false, true, false, true, false, 0.2, 0.8, 0.15000000000000002, 0.25, 'contract', 'r1', 0.042, 12.5, 81.25, 200, NULL, true, '2024-01-02 10:00:00+00', NULL, NULL, NULL);
INSERT INTO predictions_2024_02 VALUES ('018df74f-83ff-7000-8000-000000000003', '2024-02-29 23:59:59.999+00', 0.30000000000000004, 23, 22.25, 12, 0.3333333333333333, true, false, true, false, true, false, 0.4, 0.6, 0.35000000000000003, 0.45, 'contract', 'r1', 0.042, 12.5, 81.25, 200, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO predictions_2024_02 VALUES ('018df4d7-cd40-7000-8000-000000000002', '2024-02-29 12:30:00+00', 0.30000000000000004, 22, 22.25, 12, 0.3333333333333333, true, false, true, false, true, false, 0.3, 0.7, 0.25, 0.35, 'contract', 'r1', 0.042, 12.5, 81.25, 200, NULL, false, '2024-03-01 00:00:00+00', NULL, NULL, NULL);
INSERT INTO predictions_2024_03 VALUES ('018df74f-8400-7000-8000-000000000004', '2024-03-01 00:00:00+00', 0.30000000000000004, 24, 22.25, 12, 0.3333333333333333, true, false, true, false, true, false, 0.5, 0.5, 0.45, 0.55, 'contract', 'r1', 0.042, 12.5, 81.25, 200, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO predictions_2025_06 VALUES ('0197729a-3c00-7000-8000-000000000005', '2025-06-15 08:00:00+00', 0.30000000000000004, 25, 22.25, 12, 0.3333333333333333, true, false, true, false, true, false, NULL, NULL, NULL, NULL, 'contract', 'r1', 0.042, 12.5, 81.25, 500, 'the model broke: ''quoted'' κ 🏉', NULL, NULL, NULL, NULL, NULL);
INSERT INTO predictions_2025_12 VALUES ('019b76da-a7ff-7000-8000-000000000006', '2025-12-31 23:59:59.999+00', 0.30000000000000004, 26, 22.25, 12, 0.3333333333333333, true, false, true, false, true, false, 0.7, 0.7, 0.6499999999999999, 0.75, 'contract', 'r1', 0.042, 12.5, 81.25, 200, NULL, true, '2026-01-01 00:01:00+00', 'second', 'r2', 0.4375);
INSERT INTO predictions_2026_01 VALUES ('019b76da-a800-7000-8000-000000000007', '2026-01-01 00:00:00+00', 0.30000000000000004, 27, 22.25, 12, 0.3333333333333333, true, false, true, false, true, false, 0.8, 0.8, 0.75, 0.8500000000000001, 'contract', 'r1', 0.042, 12.5, 81.25, 200, NULL, NULL, NULL, NULL, NULL, NULL);
