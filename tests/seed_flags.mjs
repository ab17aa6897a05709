// The seed's four steps and its hash, as the seed gives them (section 4.1, types stripped; the row is handed in instead
// of fetched): what Relevo's answers are compared with. Reads {flags, tenants} from standard input, one JSON object a
// line, and answers each with a line of [uses v2, percentile] per tenant.

import { createInterface } from 'node:readline';

function shouldUseVoiceAgentV2(flags, tenantId) {
  // Si esta globalmente deshabilitado
  if (!flags.enabled) {
    return false;
  }

  // Si el tenant esta explicitamente deshabilitado
  if (flags.disabledTenants.includes(tenantId)) {
    return false;
  }

  // Si el tenant esta explicitamente habilitado
  if (flags.enabledTenants.includes(tenantId)) {
    return true;
  }

  // Porcentaje de rollout basado en hash del tenant ID
  const hash = hashTenantId(tenantId);
  const percentile = hash % 100;

  return percentile < flags.percentage;
}

function hashTenantId(tenantId) {
  let hash = 0;
  for (let i = 0; i < tenantId.length; i++) {
    hash = ((hash << 5) - hash) + tenantId.charCodeAt(i);
    hash = hash & hash;
  }
  return Math.abs(hash);
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const { flags, tenants } = JSON.parse(line);
  console.log(JSON.stringify(tenants.map((id) => [shouldUseVoiceAgentV2(flags, id), hashTenantId(id) % 100])));
}
