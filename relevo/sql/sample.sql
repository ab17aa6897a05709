-- The v1 tables as the platform's real ones are: no foreign keys, no checks, nothing required but the id.

CREATE TABLE IF NOT EXISTS public.businesses (
    id uuid PRIMARY KEY,
    name text,
    vertical text,
    email text,
    time_zone text DEFAULT 'America/Mexico_City',
    phone_number text,
    human_phone_number text,
    created_at timestamptz DEFAULT now()
);

CREATE TABLE IF NOT EXISTS public.voice_agent_config (
    id uuid PRIMARY KEY,
    business_id uuid,
    vapi_assistant_id text,
    phone_number_id text,
    assistant_name text,
    system_prompt text,
    voice_id text,
    first_message text,
    is_active boolean DEFAULT true,
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now()
);

CREATE TABLE IF NOT EXISTS public.voice_calls (
    id uuid PRIMARY KEY,
    business_id uuid,
    vapi_call_id text,
    status text,
    started_at timestamptz,
    ended_at timestamptz,
    duration_seconds integer,
    avg_latency_ms integer,
    created_at timestamptz DEFAULT now()
);

CREATE INDEX IF NOT EXISTS voice_calls_business_id_started_at_idx
    ON public.voice_calls (business_id, started_at);
