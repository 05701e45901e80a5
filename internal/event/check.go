package event

import "strings"

// Check asks whether the helper knows in's type and whether no value of the
// data contradicts the declared fields. Null and absence contradict nothing,
// and undeclared fields may hold anything. The error is an [*Error] with status
// 422 and code [CodeUnknownEvent] or [CodeFieldType].
func (in *Input) Check(h *Helper) error {
	if !h.knows(in.Type) {
		known := h.Types()
		return unacceptable(CodeUnknownEvent, paths[atEvent], "%q is unknown to helper %q, which has %s",
			clip(in.Type), h.ID, strings.Join(known, ", ")).suggest(Suggest(in.Type, known))
	}
	if len(h.Fields) == 0 {
		return nil
	}
	for key, value := range members(in.Data) {
		got := kind(value[0])
		if got == "null" {
			continue
		}
		for i := range h.Fields {
			f := &h.Fields[i]
			if !spells(key, f.Name) {
				continue
			}
			if string(f.Type) != got {
				return unacceptable(CodeFieldType, paths[atEntryData]+"."+f.Name,
					"is %s, but helper %q declares %s", article(got), h.ID, article(string(f.Type)))
			}
			break
		}
	}
	return nil
}
