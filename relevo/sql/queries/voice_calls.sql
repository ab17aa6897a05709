-- What writes the platform's own table of calls, as it is generated from the source mapping.

-- install_writer --
CREATE OR REPLACE FUNCTION relevo.write_voice_call(call relevo.calls) RETURNS text
LANGUAGE plpgsql SET search_path = '' SET enable_seqscan = off SET jit = off AS $writer$
BEGIN
    UPDATE {table} AS v1 SET {changes} WHERE {ours};
    IF FOUND THEN
        RETURN 'written';
    END IF;
    IF {look_up} THEN
        UPDATE {table} AS v1 SET {notes} WHERE {theirs};
        IF FOUND THEN
            RETURN 'annotated';
        END IF;
    END IF;
    IF NOT {may_insert} THEN
        RETURN 'missing';
    END IF;
    INSERT INTO {table} ({columns}) VALUES ({values});
    RETURN 'written';
END $writer$
