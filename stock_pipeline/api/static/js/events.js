export function follow() { return { close() {} }; }
