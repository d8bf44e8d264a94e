// Command schema writes the table of every field of every built-in kind that the server embeds.
//
// Kubernetes defines its API as Go structs, and only those say everything: JSON names, pointers, omitempty, protobuf
// numbers, patch and list strategies, defaults, enums. So this tool, alone in this repository, is written in Go and reads them
// with Go's own parser. It is run by hand when the Kubernetes version changes:
//
//	cd xtask/schema && go run . ../../crates/api/schema
//
// It writes types.txt (read at run time by crates/api/src/schema/table.rs, which documents the format) and
// descriptions.gz (one line a type or field, in the same order).
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sort"
	"strconv"
	"strings"
)

const version = "v0.36.1"

// A source is one Go package whose kinds the server serves.
type source struct{ importPath, definition, group, version string }

var sources = []source{
	{"k8s.io/apimachinery/pkg/apis/meta/v1", "io.k8s.apimachinery.pkg.apis.meta.v1", "", "v1"},
	{"k8s.io/api/core/v1", "io.k8s.api.core.v1", "", "v1"},
	{"k8s.io/api/apps/v1", "io.k8s.api.apps.v1", "apps", "v1"},
	{"k8s.io/api/batch/v1", "io.k8s.api.batch.v1", "batch", "v1"},
	{"k8s.io/api/autoscaling/v1", "io.k8s.api.autoscaling.v1", "autoscaling", "v1"},
	{"k8s.io/api/autoscaling/v2", "io.k8s.api.autoscaling.v2", "autoscaling", "v2"},
	{"k8s.io/api/policy/v1", "io.k8s.api.policy.v1", "policy", "v1"},
	{"k8s.io/api/discovery/v1", "io.k8s.api.discovery.v1", "discovery.k8s.io", "v1"},
	{"k8s.io/api/coordination/v1", "io.k8s.api.coordination.v1", "coordination.k8s.io", "v1"},
	{"k8s.io/api/events/v1", "io.k8s.api.events.v1", "events.k8s.io", "v1"},
	{"k8s.io/api/rbac/v1", "io.k8s.api.rbac.v1", "rbac.authorization.k8s.io", "v1"},
	{"k8s.io/api/scheduling/v1", "io.k8s.api.scheduling.v1", "scheduling.k8s.io", "v1"},
	{"k8s.io/api/storage/v1", "io.k8s.api.storage.v1", "storage.k8s.io", "v1"},
	{"k8s.io/api/networking/v1", "io.k8s.api.networking.v1", "networking.k8s.io", "v1"},
	{"k8s.io/api/node/v1", "io.k8s.api.node.v1", "node.k8s.io", "v1"},
	{"k8s.io/api/authentication/v1", "io.k8s.api.authentication.v1", "authentication.k8s.io", "v1"},
	{"k8s.io/api/authorization/v1", "io.k8s.api.authorization.v1", "authorization.k8s.io", "v1"},
	{"k8s.io/api/certificates/v1", "io.k8s.api.certificates.v1", "certificates.k8s.io", "v1"},
	{"k8s.io/api/admissionregistration/v1", "io.k8s.api.admissionregistration.v1", "admissionregistration.k8s.io", "v1"},
	{"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1", "apiextensions.k8s.io", "v1"},
	{"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1", "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1", "apiregistration.k8s.io", "v1"},
}

// Types that encode themselves to JSON in a way their fields do not show.
var leaves = map[string]string{
	"k8s.io/apimachinery/pkg/apis/meta/v1.Time":                                             "time",
	"k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime":                                        "microtime",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Duration":                                         "duration",
	"k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1":                                         "fields",
	"k8s.io/apimachinery/pkg/api/resource.Quantity":                                         "quantity",
	"k8s.io/apimachinery/pkg/util/intstr.IntOrString":                                       "intorstring",
	"k8s.io/apimachinery/pkg/runtime.RawExtension":                                          "raw",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON":                         "json",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrBool":        "schemaorbool",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrArray":       "schemaorarray",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrStringArray": "schemaorstrings",
}

var scalars = map[string]string{
	"string": "string", "bool": "bool", "int32": "int32", "int64": "int64", "float64": "double", "[]byte": "bytes",
	"int": "int64", "uint8": "int32", "byte": "int32",
}

type declaration struct {
	spec    *ast.TypeSpec
	comment string
	imports map[string]string
	pkg     string
}

var declarations = map[string]*declaration{}
var enumValues = map[string][]string{}
var constants = map[string]string{}
var loaded = map[string]bool{}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: go run . FOLDER (where types.txt and descriptions.gz go)")
	}
	for _, each := range sources {
		load(each.importPath)
	}
	table, descriptions := write()
	var packed bytes.Buffer
	zip, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	zip.Write(descriptions)
	zip.Close()
	check(os.WriteFile(filepath.Join(os.Args[1], "types.txt"), table, 0o644))
	check(os.WriteFile(filepath.Join(os.Args[1], "descriptions.gz"), packed.Bytes(), 0o644))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// ---- reading Go ----

func moduleFolder(importPath string) string {
	parts := strings.SplitN(importPath, "/", 3)
	module := parts[0] + "/" + parts[1]
	out, err := exec.Command("go", "mod", "download", "-json", module+"@"+version).Output()
	if err != nil {
		log.Fatalf("%s %s: %v", module, version, err)
	}
	var found struct{ Dir string }
	check(json.Unmarshal(out, &found))
	return filepath.Join(found.Dir, parts[2])
}

func load(importPath string) {
	if loaded[importPath] {
		return
	}
	loaded[importPath] = true
	packages, err := parser.ParseDir(token.NewFileSet(), moduleFolder(importPath), func(info os.FileInfo) bool {
		return !strings.HasSuffix(info.Name(), "_test.go")
	}, parser.ParseComments)
	check(err)
	for _, each := range packages {
		for _, file := range each.Files {
			loadFile(importPath, file)
		}
	}
}

func loadFile(importPath string, file *ast.File) {
	imports := map[string]string{}
	for _, each := range file.Imports {
		path, _ := strconv.Unquote(each.Path.Value)
		name := path[strings.LastIndex(path, "/")+1:]
		if each.Name != nil {
			name = each.Name.Name
		}
		imports[name] = path
	}
	for _, each := range file.Decls {
		general, ok := each.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range general.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				comment := spec.Doc
				if comment == nil {
					comment = general.Doc
				}
				declarations[importPath+"."+spec.Name.Name] = &declaration{spec, rawText(comment), imports, importPath}
			case *ast.ValueSpec:
				loadConstant(importPath, spec)
			}
		}
	}
}

func loadConstant(importPath string, spec *ast.ValueSpec) {
	for i, name := range spec.Names {
		if i >= len(spec.Values) {
			continue
		}
		literal, ok := spec.Values[i].(*ast.BasicLit)
		if !ok {
			continue
		}
		constants[importPath+"."+name.Name] = literal.Value
		if kind, ok := spec.Type.(*ast.Ident); ok && literal.Kind == token.STRING {
			value, _ := strconv.Unquote(literal.Value)
			full := importPath + "." + kind.Name
			enumValues[full] = append(enumValues[full], value)
		}
	}
}

// rawText keeps the lines of a comment as they are; CommentGroup.Text would drop `+marker` lines.
func rawText(group *ast.CommentGroup) string {
	if group == nil {
		return ""
	}
	var lines []string
	for _, each := range group.List {
		text := each.Text
		if strings.HasPrefix(text, "//") {
			lines = append(lines, strings.TrimPrefix(text[2:], " "))
			continue
		}
		for _, line := range strings.Split(strings.TrimSuffix(strings.TrimPrefix(text, "/*"), "*/"), "\n") {
			lines = append(lines, strings.TrimPrefix(strings.TrimSpace(line), "* "))
		}
	}
	return strings.Join(lines, "\n")
}

// markers are the `+name=value` lines of a comment.
func markers(comment string) map[string][]string {
	found := map[string][]string{}
	for _, line := range strings.Split(comment, "\n") {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "+") {
			continue
		}
		name, value, _ := strings.Cut(line[1:], "=")
		found[name] = append(found[name], strings.TrimSpace(value))
	}
	return found
}

// description is what upstream's OpenAPI document makes of a comment: markers, TODOs and all behind `---` are left out,
// lines are joined, an empty line or an indented one stays a break.
func description(comment string) string {
	var text strings.Builder
	broken := true
	for _, line := range strings.Split(comment, "\n") {
		trimmed := strings.TrimRight(line, " ")
		leading := strings.TrimLeft(trimmed, " ")
		switch {
		case strings.HasPrefix(line, "---"):
			return strings.TrimSpace(text.String())
		case leading == "":
			text.WriteString("\n\n")
			broken = true
		case strings.HasPrefix(leading, "+"), strings.HasPrefix(leading, "TODO"):
		case strings.HasPrefix(line, " "), strings.HasPrefix(line, "\t"), strings.HasPrefix(line, "-"):
			if !broken {
				text.WriteString("\n")
			}
			text.WriteString(line + "\n")
			broken = true
		default:
			if !broken {
				text.WriteString(" ")
			}
			text.WriteString(trimmed)
			broken = false
		}
	}
	result := strings.TrimSpace(text.String())
	for strings.Contains(result, "\n\n\n") {
		result = strings.ReplaceAll(result, "\n\n\n", "\n\n")
	}
	return result
}

// ---- types ----

// A shape is how a field is written in the table, with what is known of the Go type behind it.
type shape struct {
	text    string
	goType  string
	pointer bool
	structs []string // import path + name of the structs it refers to
	enum    []string
	group   bool // list or map
	comment string
}

func shapeOf(expression ast.Expr, in *declaration) shape {
	switch e := expression.(type) {
	case *ast.StarExpr:
		inner := shapeOf(e.X, in)
		inner.pointer = true
		return inner
	case *ast.ArrayType:
		if element, ok := e.Elt.(*ast.Ident); ok && element.Name == "byte" {
			return shape{text: "bytes", goType: "[]uint8", group: true}
		}
		inner := shapeOf(e.Elt, in)
		inner.text, inner.goType, inner.group, inner.pointer = "[]"+inner.text, "[]"+inner.goType, true, false
		return inner
	case *ast.MapType:
		inner := shapeOf(e.Value, in)
		key := shapeOf(e.Key, in)
		inner.text, inner.goType, inner.group, inner.pointer = "{}"+inner.text, "map["+key.goType+"]"+inner.goType, true, false
		return inner
	case *ast.SelectorExpr:
		return named(in.imports[e.X.(*ast.Ident).Name], e.Sel.Name)
	case *ast.Ident:
		if text, ok := scalars[e.Name]; ok {
			return shape{text: text, goType: e.Name}
		}
		return named(in.pkg, e.Name)
	}
	log.Fatalf("%s: type expression %T", in.pkg, expression)
	return shape{}
}

func named(importPath, name string) shape {
	full := importPath + "." + name
	goType := importPath[strings.LastIndex(importPath, "/")+1:] + "." + name
	if leaf, ok := leaves[full]; ok {
		return shape{text: leaf, goType: goType}
	}
	load(importPath)
	target, ok := declarations[full]
	if !ok {
		log.Fatalf("no type %s", full)
	}
	if _, ok := target.spec.Type.(*ast.StructType); ok {
		return shape{text: definition(importPath) + "." + name, goType: goType, structs: []string{full}, comment: target.comment}
	}
	inner := shapeOf(target.spec.Type, target)
	inner.goType, inner.comment = goType, target.comment
	if _, ok := markers(target.comment)["enum"]; ok {
		inner.enum = append([]string{}, enumValues[full]...)
		sort.Strings(inner.enum)
	}
	return inner
}

func definition(importPath string) string {
	for _, each := range sources {
		if each.importPath == importPath {
			return each.definition
		}
	}
	log.Fatalf("package %s is not among the sources", importPath)
	return ""
}

// ---- writing ----

type field struct{ line, description, reference string }

func write() (table, descriptions []byte) {
	wanted := reachable()
	var lines, texts bytes.Buffer
	fmt.Fprintf(&lines, "# Written by xtask/schema from k8s.io/api %s. Do not edit.\n", version)
	for _, each := range sources {
		fmt.Fprintf(&lines, "package %s %s\n", each.definition, strings.TrimPrefix(each.group+"/"+each.version, "/"))
		for _, name := range structsOf(each.importPath) {
			full := each.importPath + "." + name
			if !wanted[full] {
				continue
			}
			target := declarations[full]
			fmt.Fprintf(&lines, "type %s%s\n", name, typeAttributes(target))
			writeText(&texts, description(target.comment))
			for _, field := range fieldsOf(target) {
				lines.WriteString(field.line + "\n")
				writeText(&texts, field.description)
			}
		}
	}
	return lines.Bytes(), texts.Bytes()
}

func writeText(to *bytes.Buffer, text string) {
	to.WriteString(strings.ReplaceAll(strings.ReplaceAll(text, `\`, `\\`), "\n", `\n`) + "\n")
}

func structsOf(importPath string) []string {
	var names []string
	for full, each := range declarations {
		if _, ok := each.spec.Type.(*ast.StructType); ok && each.pkg == importPath && ast.IsExported(each.spec.Name.Name) {
			names = append(names, full[len(importPath)+1:])
		}
	}
	sort.Strings(names)
	return names
}

func isKind(target *declaration) bool {
	for _, each := range target.spec.Type.(*ast.StructType).Fields.List {
		if selector, ok := each.Type.(*ast.SelectorExpr); ok && len(each.Names) == 0 && selector.Sel.Name == "TypeMeta" {
			return true
		}
		if plain, ok := each.Type.(*ast.Ident); ok && len(each.Names) == 0 && plain.Name == "TypeMeta" {
			return true
		}
	}
	return false
}

func isQueryOptions(name string) bool {
	return strings.HasSuffix(name, "Options") && name != "DeleteOptions"
}

func typeAttributes(target *declaration) string {
	text := ""
	if isKind(target) {
		text += " kind"
	}
	if value := markers(target.comment)["structType"]; len(value) > 0 && value[0] == "atomic" {
		text += " atomic"
	}
	return text
}

// reachable are the kinds and everything their fields refer to.
func reachable() map[string]bool {
	wanted := map[string]bool{}
	var visit func(full string)
	visit = func(full string) {
		if wanted[full] {
			return
		}
		wanted[full] = true
		for _, field := range fieldsOf(declarations[full]) {
			if field.reference != "" {
				visit(field.reference)
			}
		}
	}
	for _, each := range sources {
		for _, name := range structsOf(each.importPath) {
			full := each.importPath + "." + name
			schemaRoot := strings.HasSuffix(full, "apiextensions/v1.JSONSchemaProps")
			if (isKind(declarations[full]) && !isQueryOptions(name) && name != "PartialObjectMetadata" && name != "PartialObjectMetadataList") || schemaRoot {
				if strings.HasSuffix(each.importPath, "meta/v1") && !metaKinds[name] {
					continue
				}
				visit(full)
			}
		}
	}
	return wanted
}

// Of the kinds of the meta group only these are ever a request's body or named in the OpenAPI document.
var metaKinds = map[string]bool{"DeleteOptions": true, "Status": true, "APIGroup": true, "APIGroupList": true, "APIResourceList": true, "APIVersions": true}

func fieldsOf(target *declaration) []field {
	var fields []field
	for _, each := range target.spec.Type.(*ast.StructType).Fields.List {
		if each.Tag == nil {
			continue
		}
		literal, _ := strconv.Unquote(each.Tag.Value)
		tag := reflect.StructTag(literal)
		name, options, _ := strings.Cut(tag.Get("json"), ",")
		if name == "-" || (name == "" && !strings.Contains(options, "inline")) {
			continue
		}
		fields = append(fields, fieldOf(each, tag, name, options, target))
	}
	return fields
}

func fieldOf(each *ast.Field, tag reflect.StructTag, name, options string, in *declaration) field {
	kind := shapeOf(each.Type, in)
	comment := rawText(each.Doc)
	marks := markers(comment)
	number := "0"
	if parts := strings.Split(tag.Get("protobuf"), ","); len(parts) > 1 {
		number = parts[1]
	}
	result := field{description: description(comment)}
	if len(kind.structs) > 0 {
		result.reference = kind.structs[0]
	}
	text := kind.text
	if prefix := definition(in.pkg) + "."; strings.Contains(text, prefix) {
		text = strings.Replace(text, prefix, "", 1)
	}
	if name == "" {
		result.line = fmt.Sprintf("- inline %s %s", text, number)
		return result
	}
	attributes := attributesOf(kind, marks, tag, options)
	result.line = strings.TrimRight(fmt.Sprintf("- %s %s %s %s", name, text, number, strings.Join(attributes, " ")), " ")
	return result
}

func attributesOf(kind shape, marks map[string][]string, tag reflect.StructTag, options string) []string {
	var attributes []string
	add := func(name, value string) {
		if value != "" {
			attributes = append(attributes, name+"="+value)
		}
	}
	omitted := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
	if _, optional := marks["optional"]; !omitted && !optional {
		attributes = append(attributes, "required")
	}
	if strings.Contains(options, "omitempty") && !kind.pointer && len(kind.structs) == 0 || kind.group && omitted {
		attributes = append(attributes, "omitempty")
	}
	if kind.pointer {
		attributes = append(attributes, "pointer")
	}
	add("patch", tag.Get("patchStrategy"))
	add("mergekey", tag.Get("patchMergeKey"))
	add("list", first(marks["listType"]))
	add("keys", strings.Join(marks["listMapKey"], ","))
	if first(marks["mapType"]) == "atomic" || first(marks["structType"]) == "atomic" {
		attributes = append(attributes, "atomic")
	}
	if first(marks["mapType"]) == "granular" || first(marks["structType"]) == "granular" {
		attributes = append(attributes, "granular")
	}
	add("default", defaultValue(first(marks["default"])))
	add("enum", strings.Join(kind.enum, ","))
	if kind.goType != plainGoType(kind.text) {
		add("go", kind.goType)
	}
	return attributes
}

// plainGoType is the Go type a reader of the table would guess from the shape.
func plainGoType(text string) string {
	switch {
	case strings.HasPrefix(text, "[]"):
		return "[]" + plainGoType(text[2:])
	case strings.HasPrefix(text, "{}"):
		return "map[string]" + plainGoType(text[2:])
	case text == "double":
		return "float64"
	case text == "bytes":
		return "[]uint8"
	case text == "time":
		return "v1.Time"
	case text == "microtime":
		return "v1.MicroTime"
	case text == "duration":
		return "v1.Duration"
	case text == "fields":
		return "v1.FieldsV1"
	case text == "quantity":
		return "resource.Quantity"
	case text == "intorstring":
		return "intstr.IntOrString"
	case text == "raw":
		return "runtime.RawExtension"
	case text == "json":
		return "v1.JSON"
	case text == "schemaorbool":
		return "v1.JSONSchemaPropsOrBool"
	case text == "schemaorarray":
		return "v1.JSONSchemaPropsOrArray"
	case text == "schemaorstrings":
		return "v1.JSONSchemaPropsOrStringArray"
	}
	parts := strings.Split(text, ".")
	if len(parts) > 1 {
		return strings.Join(parts[len(parts)-2:], ".")
	}
	return text
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// defaultValue resolves `ref(Constant)`; what is left is JSON.
func defaultValue(text string) string {
	if !strings.HasPrefix(text, "ref(") {
		return text
	}
	name := strings.TrimSuffix(strings.TrimPrefix(text, "ref("), ")")
	for full, value := range constants {
		if strings.HasSuffix(full, "/"+name) || strings.HasSuffix(full, "."+name) {
			return value
		}
	}
	log.Fatalf("no constant %s", name)
	return ""
}
