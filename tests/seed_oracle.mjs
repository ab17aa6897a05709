// The seed's three inference functions, as the seed gives them (section 2.1, types stripped): what Relevo is compared
// with. Reads {prompt, vertical} from standard input, one JSON object a line, and answers each with a line.

import { createInterface } from 'node:readline';

function inferAssistantType(config, vertical) {
  const prompt = (config.system_prompt || '').toLowerCase();

  if (vertical === 'restaurant') {
    if (prompt.includes('pedido') || prompt.includes('orden') || prompt.includes('menu')) {
      if (prompt.includes('transferir') || prompt.includes('humano')) {
        return 'rest_complete';
      }
      return 'rest_standard';
    }
    return 'rest_basic';
  }

  if (vertical === 'dental') {
    if (prompt.includes('servicio') || prompt.includes('tratamiento')) {
      if (prompt.includes('transferir') || prompt.includes('humano')) {
        return 'dental_complete';
      }
      return 'dental_standard';
    }
    return 'dental_basic';
  }

  return `${vertical}_basic`;
}

function extractSpecialInstructions(prompt) {
  if (!prompt) return null;

  const patterns = [
    /instrucciones especiales[:\s]*([\s\S]*?)(?=##|$)/i,
    /notas importantes[:\s]*([\s\S]*?)(?=##|$)/i,
    /reglas especiales[:\s]*([\s\S]*?)(?=##|$)/i
  ];

  for (const pattern of patterns) {
    const match = prompt.match(pattern);
    if (match && match[1]) {
      return match[1].trim().slice(0, 1000);
    }
  }

  return null;
}

function inferCapabilities(prompt, vertical) {
  if (!prompt) {
    return vertical === 'restaurant'
      ? ['reservations']
      : ['appointments'];
  }

  const capabilities = [];
  const promptLower = prompt.toLowerCase();

  if (vertical === 'restaurant') {
    if (promptLower.includes('reserv')) capabilities.push('reservations');
    if (promptLower.includes('pedido') || promptLower.includes('orden')) capabilities.push('orders');
    if (promptLower.includes('menu')) capabilities.push('menu_info');
    if (promptLower.includes('promo')) capabilities.push('promotions');
  }

  if (vertical === 'dental') {
    if (promptLower.includes('cita')) capabilities.push('appointments');
    if (promptLower.includes('servicio') || promptLower.includes('tratamiento')) capabilities.push('services_info');
    if (promptLower.includes('doctor')) capabilities.push('doctor_info');
    if (promptLower.includes('seguro')) capabilities.push('insurance_info');
  }

  if (promptLower.includes('horario')) capabilities.push('business_hours');
  if (promptLower.includes('transferir') || promptLower.includes('humano')) capabilities.push('human_transfer');
  if (promptLower.includes('faq') || promptLower.includes('pregunta')) capabilities.push('faq');

  return capabilities.length > 0 ? capabilities : ['basic'];
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const { prompt, vertical } = JSON.parse(line);
  console.log(JSON.stringify({
    assistant_type_id: inferAssistantType({ system_prompt: prompt }, vertical),
    enabled_capabilities: inferCapabilities(prompt, vertical),
    special_instructions: extractSpecialInstructions(prompt)
  }));
}
